"""Text that is on every machine: documentation, licences, manuals, as one JSONL file of documents.

    python benchmarks/machine_text.py data/machine_text.jsonl

Read are the README, licence and text files of this Python and its installed packages and, where the system has them,
the packages' documentation (/usr/share/doc, without changelogs; HTML without its tags) and English manuals
(/usr/share/man), of one program at most 3,000. What came before is left out: a document whose letters and digits are
another's, and a paragraph of 200 characters or more that another file had. The order is a function of the content, so
that parts of the file are alike.
"""

import gzip
import hashlib
import json
import os
import re
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

DOCUMENTATION, MANUALS = Path("/usr/share/doc"), Path("/usr/share/man")
TEXT_NAMES = re.compile(
    r"\.(md|txt|rst)(\.gz)?$|^(copyright|readme|news|licen[cs]e|copying|authors|notice)", re.I
)
HTML_NAMES = re.compile(r"\.x?html?(\.gz)?$", re.I)
MANUAL_NAMES = re.compile(r"\.[1-8]\w*(\.gz)?$")
NO_PROSE = re.compile(r"changelog|(top_level|entry_points|record|sources|vocab)\b.*\.txt", re.I)
MOST_RELATIVES = 3000  # manuals of one program, such as git-*: they read alike
LEAST_CHARACTERS, PARAGRAPH_CHARACTERS, MOST_BYTES = 500, 200, 5_000_000
ROFF_COMMENT, ROFF_FONT = re.compile(r"^['.]\s*\\\".*\n?", re.M), re.compile(r"\\f[A-Z]|\\(?=-)|\\&")


class _Visible(HTMLParser):
    """The text of an HTML page that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style", "head")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style", "head")

    def handle_data(self, data: str) -> None:
        if self._hidden <= 0:
            self.parts.append(data)


def text_of(path: Path) -> str:
    """The text of a file; empty where it can't be read as UTF-8."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, ValueError):
        return ""
    if HTML_NAMES.search(path.name):
        page = _Visible()
        page.feed(text)
        return re.sub(r"\n\s*\n", "\n\n", "".join(page.parts))
    if MANUALS in path.parents:
        return ROFF_FONT.sub("", ROFF_COMMENT.sub("", text))
    return text


def files() -> Iterator[Path]:
    """What is read, sorted: the place decides which names count."""
    library = {Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")}
    relatives: Counter[str] = Counter()
    for root in (*sorted(library), DOCUMENTATION, *sorted(MANUALS.glob("man[1-8]"))):
        for path in sorted(root.rglob("*")):
            name = path.name
            wanted = (
                MANUAL_NAMES.search(name)
                if MANUALS in path.parents
                else TEXT_NAMES.search(name) or HTML_NAMES.search(name)
            )
            if MANUALS in path.parents:
                family = re.split(r"[-_.]", name)[0]
                relatives[family] += 1
                wanted = wanted and relatives[family] <= MOST_RELATIVES
            is_whole = path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_BYTES
            if wanted and is_whole and not NO_PROSE.search(str(path)):
                yield path


def _key(text: str) -> bytes:
    return hashlib.sha256("".join(re.findall(r"\w+", text.lower())).encode()).digest()


def documents() -> Iterator[str]:
    """The documents, none of them twice."""
    seen: set[bytes] = set()
    with ProcessPoolExecutor() as pool:
        for text in pool.map(text_of, files(), chunksize=64):
            new = []
            for paragraph in text.split("\n\n"):
                if len(paragraph) >= PARAGRAPH_CHARACTERS:
                    if (key := _key(paragraph)) in seen:
                        continue
                    seen.add(key)
                new.append(paragraph)
            document = "\n\n".join(new).strip() + "\n"
            if len(document) >= LEAST_CHARACTERS and (key := _key(document)) not in seen:
                seen.add(key)
                yield document


def write(path: Path) -> int:
    """Writes the file, whole or not at all, and returns its bytes of text."""
    found = sorted(documents(), key=_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in found)
    os.replace(file.name, path)
    return sum(len(text.encode()) for text in found)


if __name__ == "__main__":
    print(f"{sys.argv[1]}: {write(Path(sys.argv[1])):,} bytes of text")
