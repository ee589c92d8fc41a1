"""The parts of a look inside a model, by name. To add one: write its view, and its line in `PARTS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from myna.errors import UsageError, unknown_name
from myna.evaluate.inspect.model_views import positions_view, smoothness_view, tensors_view, weights_view
from myna.evaluate.inspect.text_views import attention_view, lens_view, nearest_view, undertrained_view
from myna.evaluate.inspect.view import Subject, View


@dataclass(frozen=True)
class Part:
    """A line of the table.

    Attributes:
        needs_tokenizer: whether it speaks of tokens.
    """

    look: Callable[[Subject], View]
    needs_tokenizer: bool = False


PARTS = {
    "tensors": Part(tensors_view),
    "positions": Part(positions_view),
    "smoothness": Part(smoothness_view),
    "weights": Part(weights_view),
    "attention": Part(attention_view, needs_tokenizer=True),
    "lens": Part(lens_view, needs_tokenizer=True),
    "nearest": Part(nearest_view, needs_tokenizer=True),
    "undertrained": Part(undertrained_view, needs_tokenizer=True),
}


def named_parts(names: Sequence[str]) -> list[str]:
    """Parts by their names, each once.

    Raises:
        UsageError: there is no such part.
    """
    for name in names:
        if name not in PARTS:
            raise unknown_name("part", name, list(PARTS))
    if not names:
        raise UsageError(f"--show names no part; there are: {', '.join(PARTS)}")
    return list(dict.fromkeys(names))
