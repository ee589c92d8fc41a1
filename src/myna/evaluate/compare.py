"""Texts of several models side by side: columns on a terminal, blocks where the output is piped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.generate.many import Text
from myna.generate.sampling import Sampling

if TYPE_CHECKING:
    from rich.table import Table

LEAST_COLUMN = 24  # characters; narrower ones are put below each other


@dataclass(frozen=True)
class Column:
    """What one model wrote.

    Attributes:
        model: its name, for people.
        texts: for each prompt each of its continuations; in all columns of a comparison the same ones, in one order.
    """

    model: str
    texts: Sequence[Text]


def rows(columns: Sequence[Column]) -> Iterator[tuple[Text, ...]]:
    """Each continuation by all models."""
    return zip(*(column.texts for column in columns), strict=True)


def records(column: Column, seed: int | None) -> Iterator[dict[str, Any]]:
    """The texts of a model as JSON objects, with the keys of `myna sample --json`."""
    for text in column.texts:
        about = {"model": column.model, "prompt": text.prompt, "number": text.number, "seed": seed}
        yield about | {"text": text.new, "tokens": text.n_new, "finish_reason": text.finish_reason}


def settings_line(sampling: Sampling) -> str:
    """How the texts were drawn, in a line: what is needed to get them again.

    >>> settings_line(Sampling(max_tokens=20, temperature=0.8, top_k=50, seed=3))
    'seed 3, temperature 0.8, top-k 50, at most 20 new tokens'
    """
    said = [f"seed {sampling.seed}", f"temperature {sampling.temperature:g}"]
    for name, value in (("top-k", sampling.top_k), ("top-p", sampling.top_p), ("min-p", sampling.min_p)):
        if value is not None:
            said.append(f"{name} {value:g}")
    if sampling.repetition_penalty != 1:
        said.append(f"repetition penalty {sampling.repetition_penalty:g}")
    return ", ".join([*said, f"at most {sampling.max_tokens} new tokens"])


def fits(columns: Sequence[Column], width: int) -> bool:
    """Whether a terminal of that many characters has room for the columns beside each other."""
    return width // len(columns) >= LEAST_COLUMN


def blocks(columns: Sequence[Column]) -> Iterator[str]:
    """The lines of the plain form: under each text's number the models, each with the whole text below its name."""
    total = len(columns[0].texts)
    for number, row in enumerate(rows(columns), start=1):
        if total > 1:
            yield f"--- {number} of {total} ---"
        for column, text in zip(columns, row, strict=True):
            yield f"=== {column.model} ==="
            yield text.prompt + text.new


def table(columns: Sequence[Column]) -> "Table":
    """The columns, a row for each text, the prompt dimmed."""
    from rich import box
    from rich.table import Table
    from rich.text import Text as Styled

    made = Table(box=box.SIMPLE_HEAD, show_lines=True, expand=True, padding=(0, 1))
    for column in columns:
        made.add_column(Styled(visible(column.model)), ratio=1, overflow="fold")
    for row in rows(columns):
        made.add_row(*(Styled.assemble((visible(one.prompt), "dim"), visible(one.new)) for one in row))
    return made


def visible(text: str) -> str:
    """The text with control characters as their pictures, since a terminal would obey them; line breaks stay.

    >>> visible("a\\tb\\x1b[2J\\n")
    'a␉b␛[2J\\n'
    """
    return "".join(_pictured(character) for character in text)


def _pictured(character: str) -> str:
    number = ord(character)
    if number < 0x20 and character != "\n":
        return chr(0x2400 + number)
    return "�" if 0x7F <= number < 0xA0 else character
