"""A look inside a model: its tensors, positions, weights, attention, predictions on the way, and tokens.

`look` gives the parts (parts.py) as views, and `write` their pictures and one page.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from myna.evaluate.inspect.parts import PARTS
from myna.evaluate.inspect.view import Subject, View
from myna.evaluate.inspect.weights import check_finite
from myna.files import write_atomic
from myna.html.page import Page

PAGE = "inspect.html"


def look(subject: Subject, names: Sequence[str]) -> dict[str, View]:
    """The parts of that name.

    Args:
        names: keys of PARTS. Those that speak of tokens need a subject with a tokenizer.
    Raises:
        ModelError: the weights are not finite, there is no such layer, or the prompt is longer than the window.
        UsageError: there is no such channel.
    """
    check_finite(subject.network)
    return {name: PARTS[name].look(subject) for name in names}


def write(subject: Subject, views: Mapping[str, View], out: Path) -> list[Path]:
    """Writes each picture, then the page with all of them; what was written, the page first.

    Raises:
        OutputError: the place can't be written.
    """
    written = []
    for view in views.values():
        for one in view.drawn:
            write_atomic(out / one.file, one.png)
            written.append(out / one.file)
    page = Page(subject.name, [view.section() for view in views.values()], lead="A look inside the model.")
    page.write(out / PAGE)
    return [out / PAGE, *written]
