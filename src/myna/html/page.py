"""One writer of pages that are one file: titled sections of text, facts, tables, pictures, charts and printed text.

A page asks for nothing outside itself, and its own policy forbids it. It follows the reader's choice of light or dark,
and fits a phone. Everything that is given is text: a run that is named `<script>` shows that name.

    page = Page("gpt2-124m", [Section("Loss", [Text("It falls."), Chart("Loss", curves)])])
    page.write(Path("report.html"))

A block is whatever has `html()`; `escaped` makes text safe for blocks of your own. Colours are numbers of one palette
(`--run-0` to `--run-5` of assets/base.css), the same as on the server's page.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from myna.files import write_atomic
from myna.html.chart import Chart, Curve, Reference
from myna.html.escaping import escaped, with_code
from myna.html.scripts import asset, joined_modules

__all__ = [
    "Block",
    "Chart",
    "Curve",
    "Facts",
    "Fold",
    "Page",
    "Part",
    "Picture",
    "Printed",
    "Reference",
    "Remark",
    "Section",
    "SideBySide",
    "Table",
    "Text",
    "escaped",
    "with_code",
]

MOST_IN_NAV = 4  # sections; a page of more begins with links to them
SCRIPT = "page.js"
STYLES = ("uplot/uPlot.min.css", "base.css", "page.css")
SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"<svg": "image/svg+xml", b"<?xml": "image/svg+xml"}

Tone = Literal["good", "odd", "bad", "plain"]


class Block(Protocol):
    """A part of a section."""

    def html(self) -> str:
        """Its markup, in which all text is escaped."""
        ...


@dataclass(frozen=True)
class Text:
    """Paragraphs, with an empty line between them."""

    text: str

    def html(self) -> str:
        """Its markup."""
        return "".join(f'<p class="words">{with_code(part)}</p>' for part in self.text.split("\n\n"))


@dataclass(frozen=True)
class Facts:
    """Names with their values, one a line."""

    facts: Sequence[tuple[str, object]]

    def html(self) -> str:
        """Its markup."""
        lines = (f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in self.facts)
        return f'<dl class="facts">{"".join(lines)}</dl>'


@dataclass(frozen=True)
class Table:
    """Rows under a header. A narrow screen scrolls the table, not the page.

    Attributes:
        header: the names of the columns; the first column names the rows.
        rows: texts and numbers; numbers stand at the right, None is an empty cell.
        caption: what the table shows.
        marked: numbers of the rows that are set off.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    caption: str
    marked: frozenset[int] = frozenset()

    def html(self) -> str:
        """Its markup."""
        head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in self.header)
        rows = "".join(self._row(n, row) for n, row in enumerate(self.rows))
        return (
            f'<div class="scroll" role="group" tabindex="0" aria-label="{escaped(self.caption)}">'
            f"<table><caption>{escaped(self.caption)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table></div>"
        )

    def _row(self, n: int, row: Sequence[str | int | float | None]) -> str:
        cells = "".join(_cell(value, first=not column) for column, value in enumerate(row))
        return f'<tr class="marked">{cells}</tr>' if n in self.marked else f"<tr>{cells}</tr>"


def _cell(value: str | int | float | None, *, first: bool) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = "" if value is None else f"{value:,}" if number else str(value)
    tag, scope = ("th", ' scope="row"') if first else ("td", "")
    right = ' class="number"' if number else ""
    return f"<{tag}{scope}{right}>{escaped(text)}</{tag}>"


@dataclass(frozen=True)
class Picture:
    """A PNG or an SVG, inside the page.

    Attributes:
        image: the file's bytes.
        alt: what it shows, for who doesn't see it.
        caption: a line below it.
    """

    image: bytes
    alt: str
    caption: str = ""

    def html(self) -> str:
        """Its markup.

        Raises:
            ValueError: the bytes are no PNG and no SVG.
        """
        kind = next((kind for start, kind in SIGNATURES.items() if self.image.startswith(start)), None)
        if kind is None:
            raise ValueError(f"a picture begins with {self.image[:8]!r}; a page takes PNG and SVG")
        data = base64.b64encode(self.image).decode("ascii")
        caption = f"<figcaption>{with_code(self.caption)}</figcaption>" if self.caption else ""
        source = f"data:{kind};base64,{data}"
        return f'<figure class="picture"><img src="{source}" alt="{escaped(self.alt)}">{caption}</figure>'


@dataclass(frozen=True)
class Printed:
    """Text as it is, such as a sample or a file, under a label; a long one scrolls by itself."""

    text: str
    label: str

    def html(self) -> str:
        """Its markup."""
        label = escaped(self.label)
        # A browser drops a first line break inside `pre`, so it gets one that is not the text's.
        return (
            f'<div class="part"><p class="pre-label">{with_code(self.label)}</p>'
            f'<pre tabindex="0" aria-label="{label}" role="group">\n{escaped(self.text)}</pre></div>'
        )


@dataclass(frozen=True)
class Remark:
    """Something that is said of what is shown, with a mark in front that says it in a word or two.

    Attributes:
        tone: the colour at its side: "good", "odd", "bad" or "plain". The mark says the same in words.
        hint: a smaller line below it.
    """

    mark: str
    text: str
    tone: Tone = "plain"
    hint: str = ""

    def html(self) -> str:
        """Its markup."""
        hint = f'<p class="hint">{with_code(self.hint)}</p>' if self.hint else ""
        mark = f'<span class="mark">{escaped(self.mark)}.</span>'
        return f'<div class="remark {self.tone}"><p>{mark} {with_code(self.text)}</p>{hint}</div>'


@dataclass(frozen=True)
class Part:
    """Blocks under a smaller title."""

    title: str
    blocks: Sequence[Block]

    def html(self) -> str:
        """Its markup."""
        return f'<div class="part"><h3>{escaped(self.title)}</h3>{_joined(self.blocks)}</div>'


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens."""

    title: str
    blocks: Sequence[Block]

    def html(self) -> str:
        """Its markup."""
        return (
            f'<details class="fold"><summary>{escaped(self.title)}</summary>{_joined(self.blocks)}</details>'
        )


@dataclass(frozen=True)
class SideBySide:
    """Blocks beside each other where the screen is wide enough, else below each other."""

    blocks: Sequence[Block]

    def html(self) -> str:
        """Its markup."""
        return f'<div class="side-by-side">{_joined(self.blocks)}</div>'


def _joined(blocks: Sequence[Block]) -> str:
    return "".join(block.html() for block in blocks)


@dataclass(frozen=True)
class Section:
    """A titled part of a page."""

    title: str
    blocks: Sequence[Block]

    def html(self, number: int) -> str:
        """Its markup; a page links to it by its number."""
        title, inside = escaped(self.title), _joined(self.blocks)
        return f'<section class="card" id="part-{number}"><h2>{title}</h2>{inside}</section>\n'


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        lead: a line below the title.
        foot: a line at the end: what wrote it.
        reload_s: seconds after which it reads itself anew, for a file that is written again and again; a reader can
            stop that. None: never.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    foot: str = ""
    reload_s: int | None = None

    def html(self) -> str:
        """The whole file."""
        style = "\n".join(asset(name) for name in STYLES)
        script = joined_modules(SCRIPT)
        policy = (
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )
        lead = f'<p class="lead">{with_code(self.lead)}</p>' if self.lead else ""
        foot = f"<footer>{with_code(self.foot)}</footer>" if self.foot else ""
        sections = "".join(section.html(n) for n, section in enumerate(self.sections))
        reload = "" if self.reload_s is None else f' data-reload="{self.reload_s}"'
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escaped(self.title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body{reload}>
<header><h1>{escaped(self.title)}</h1>{lead}{self._nav()}<div id="choices"></div></header>
<main>
{sections}</main>
{foot}
<script>{script}</script>
</body>
</html>
"""

    def _nav(self) -> str:
        if len(self.sections) <= MOST_IN_NAV:
            return ""
        links = "".join(
            f'<li><a href="#part-{n}">{escaped(one.title)}</a></li>' for n, one in enumerate(self.sections)
        )
        return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'

    def write(self, out: Path) -> None:
        """Writes it, whole or not at all.

        Raises:
            OutputError: the place can't be written.
        """
        write_atomic(out, self.html().encode("utf-8"))


def _hash(text: str) -> str:
    """What the policy lets run: exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
