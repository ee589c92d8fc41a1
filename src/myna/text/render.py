"""Tokens for people and for programs.

On a terminal: in colour, and legible where text is not, such as spaces, halves of an emoji, and accents. In a pipe: a
line for each token that a program can read back exactly.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from myna.text.bpe import EncodingState
from myna.text.explain import Span

# Backgrounds that neighbours take in turn: black can be read on each, and a terminal of 16 colours tells them apart.
COLOURS = ("black on #5fd7d7", "black on #ffd75f", "black on #d787ff", "black on #87ff87", "black on #ff8787")
SIGNS = {
    " ": "·",
    "\n": "⏎",
    "\t": "⇥",
    "\r": "␍",
    "\u00a0": "⍽",
    "\u200d": "<ZWJ>",
    "\u200b": "<ZWSP>",
    "\ufeff": "<BOM>",
}
DOTTED_CIRCLE = "◌"


def legible(data: bytes) -> str:
    """Bytes as something that can be read: signs for whitespace, hexadecimal for parts of characters and controls.

    >>> legible(b" caf"), legible(b"\\n"), legible(b"\\xf0\\x9f"), legible("\\u0301".encode())
    ('·caf', '⏎', '<F0.9F>', '◌\u0301')
    """
    shown: list[str] = []
    loose: list[str] = []  # bytes that are no character
    for character in data.decode("utf-8", errors="surrogateescape"):
        if 0xDC80 <= ord(character) <= 0xDCFF:
            loose.append(f"{ord(character) - 0xDC00:02X}")
            continue
        if loose:
            shown.append(f"<{'.'.join(loose)}>")
            loose = []
        shown.append(_sign(character))
    if loose:
        shown.append(f"<{'.'.join(loose)}>")
    return "".join(shown)


def _sign(character: str) -> str:
    if character in SIGNS:
        return SIGNS[character]
    category = unicodedata.category(character)
    if category in ("Mn", "Mc", "Me"):
        return DOTTED_CIRCLE + character
    if category[0] in "CZ":
        return f"<U+{ord(character):04X}>"
    return character


def exact(data: bytes) -> str:
    """Bytes so that a program can read them back: a JSON string, or hexadecimal for what is not UTF-8.

    A JSON string begins with a quotation mark, and hexadecimal does not. Neither has a tab, a line break, or any other
    character that can't be seen.

    >>> print(exact(b" a|b"), exact(b"\\n"), exact("é".encode()), exact(b"\\xf0\\x9f"))
    " a|b" "\\n" "é" f09f
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data.hex()
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


def lines(spans: Sequence[Span]) -> Iterator[str]:
    """A line for each token: its id, a tab, and its `exact` bytes."""
    return (f"{span.id}\t{exact(span.data)}" for span in spans)


def flow(spans: Sequence[Span], coloured: bool) -> Text:
    """The text with each token on its own colour; without colour, each token `exact`, with spaces between."""
    if not coloured:
        return Text(" ".join(exact(span.data) for span in spans))
    text = Text()
    for number, span in enumerate(spans):
        text.append(legible(span.data), style=COLOURS[number % len(COLOURS)])
        if span.data.endswith(b"\n") and number + 1 < len(spans):
            text.append("\n")
    return text


def token_table(spans: Sequence[Span]) -> Table:
    """A row per token: its number, id, place in the bytes of the text, bytes, and text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in (
        ("#", "right"),
        ("id", "right"),
        ("bytes at", "right"),
        ("bytes", "left"),
        ("token", "left"),
    ):
        table.add_column(heading, justify=justify, no_wrap=heading in ("#", "id", "bytes at"))  # type: ignore[arg-type]
    for number, span in enumerate(spans):
        token = Text(legible(span.data), style=COLOURS[number % len(COLOURS)])
        if span.of:
            token.append(
                f"  part of {span.of} U+{ord(span.of[0]):04X}", style="dim not bold default on default"
            )
        place = f"{span.start}-{span.end - 1}" if span.end - span.start > 1 else str(span.start)
        hexadecimal = span.data.hex(" ") if len(span.data) <= 16 else span.data[:15].hex(" ") + " ..."
        table.add_row(str(number), str(span.id), place, Text(hexadecimal, style="dim"), token)
    return table


def merges(word: str, steps: Sequence[EncodingState]) -> RenderableType:
    """The merges of a pre-token in order: what stood, what could merge at which rank, and what did."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("rank", justify="right")
    table.add_column("merge")
    table.add_column("the parts before the merge, and the rank of each pair of neighbours")
    for number, step in enumerate(steps, start=1):
        stands = Text()
        for i, token in enumerate(step.tokens):
            stands.append(legible(token), style=COLOURS[i % len(COLOURS)])
            if i < len(step.ranks):
                rank = step.ranks[i]
                style = "bold green" if i == step.chosen else "dim"
                stands.append(f" {rank if rank is not None else '-'} ", style=style)
        if step.chosen is None:
            table.add_row("", "", "done", stands)
        else:
            left, right = step.tokens[step.chosen : step.chosen + 2]
            joined = Text.assemble(
                legible(left), (" + ", "dim"), legible(right), (" = ", "dim"), legible(left + right)
            )
            table.add_row(str(number), str(step.ranks[step.chosen]), joined, stands)
    title = Text.assemble(
        "Why ", (legible(word.encode()), "bold"), " becomes these tokens: the lowest rank merges first."
    )
    return Group(title, table)


def show(console: Console, *parts: RenderableType) -> None:
    """Prints parts with a blank line after each. Lines of text are left to the terminal to wrap."""
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, (str, Text)))
        console.print()
