"""What is looked at inside a model, and what is shown of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from myna.evaluate.inspect import pictures
from myna.evaluate.inspect.tokens import token_bytes
from myna.html.chart import Chart
from myna.html.page import Block, Picture, Section, SideBySide, Table, Text
from myna.model.network import Network
from myna.text.render import exact
from myna.text.tokenizer import Tokenizer

MOST_LETTERS = 24  # of a token in a table


@dataclass(frozen=True)
class Subject:
    """What is looked at, and at what of it.

    Attributes:
        name: of the model, for people.
        tokenizer: None where it has none; then the parts that need one are left out.
        prompt: ids.
        token: the id whose nearest are wanted; None for those of the prompt.
        layer: counted from 0.
        channels: of the position embeddings; none for those that vary most.
        checkpoints: of its run, oldest first; none where it is of no run.
        trained_positions: positions that training used; None for all.
    """

    name: str
    network: Network
    tokenizer: Tokenizer | None
    prompt: Sequence[int] = ()
    token: int | None = None
    layer: int = 0
    channels: Sequence[int] = ()
    checkpoints: Sequence[Path] = ()
    trained_positions: int | None = None

    @property
    def tok(self) -> Tokenizer:
        """The tokenizer, for a part that needs one."""
        assert self.tokenizer is not None
        return self.tokenizer

    def label(self, id: int) -> str:
        """An id's token, short, for a picture."""
        return pictures.label(token_bytes(self.tok, id))

    def text(self, id: int) -> str:
        """An id's token, exactly: a JSON string, or hexadecimal for what is not UTF-8."""
        data = token_bytes(self.tok, id)
        return "no token" if data is None else exact(data)

    def cell(self, id: int) -> str:
        """The same for a table, which has no room for a line of dashes."""
        text = self.text(id)
        return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"

    def labels(self, ids: Sequence[int]) -> list[str]:
        """Theirs."""
        return [self.label(id) for id in ids]


@dataclass(frozen=True)
class Drawn:
    """A picture's name, its PNG, what it shows, and what the page shows in its place, if it can do better."""

    file: str
    png: bytes
    alt: str
    chart: Chart | None = None

    def block(self) -> Block:
        """For the page."""
        return self.chart or Picture(self.png, self.alt)


@dataclass(frozen=True)
class View:
    """What a part shows."""

    title: str
    lines: Sequence[str]
    values: Mapping[str, Any]
    tables: Sequence[Table] = ()
    drawn: Sequence[Drawn] = field(default=())

    def section(self) -> Section:
        """For the page."""
        drawn = [one.block() for one in self.drawn]
        pair = [SideBySide(drawn)] if len(drawn) > 1 else drawn
        return Section(self.title, [Text("\n\n".join(self.lines)), *pair, *self.tables])
