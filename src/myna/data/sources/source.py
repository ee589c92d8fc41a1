"""What is known of one file of a corpus, and of how the corpus is read."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from myna.data.sources.row_filter import RowFilter

KINDS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
}
# C4's JSONL has this name. A file that is .json and not compressed is a document of text.
COMPRESSED_KINDS = {".json": "jsonl"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
SUFFIXES = ".txt .md .jsonl .parquet .warc .wet (also .gz .zst)"


@dataclass(frozen=True)
class Source:
    """One file of a corpus, or a part of one that can be read by itself.

    Attributes:
        name: what the dataset's record calls the file; the same on every machine that gives the same corpus.
        place: where the file is: a local path, an address, or a path in the hub's repository.
        kind: "text" (one document), "jsonl" (one a line), "parquet" (one a row), "warc" (one a record), "pydoc" or
            "pydoc-chat".
        compression: "", "gz" or "zst"; "tar" for a tar file of JSONL files.
        n_bytes: the size of the whole file; None where only a download can tell.
        modified_ns: when a file on this machine was last changed, as it was found; None for any other.
        sha256: as published; None where nobody says.
        repository, revision: of a file on the hub.
        start, end: the part, in bytes (text, jsonl) or row groups (parquet); end is None for the rest of the file.
        split: "train" or "val" where the whole part belongs to it; None to ask each document's hash.
        begins: False for a part that continues the document of the part before it.
    """

    name: str
    place: str
    kind: str
    compression: str = ""
    n_bytes: int | None = None
    modified_ns: int | None = None
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None
    start: int = 0
    end: int | None = None
    split: str | None = None
    begins: bool = True

    @property
    def is_remote(self) -> bool:
        """Whether the file must be fetched before it can be read."""
        return self.repository is not None or is_address(self.place)

    @property
    def is_hashed(self) -> bool:
        """Whether whoever reads the file hashes it: nobody else says what was in it."""
        return self.sha256 is None and not self.is_built_in

    @property
    def is_built_in(self) -> bool:
        """Whether it is no file, but made from what every Python has."""
        return self.kind in ("pydoc", "pydoc-chat")

    def fetched(self, path: Path) -> "Source":
        """The same file, now at a path on this machine."""
        return dataclasses.replace(self, place=str(path), repository=None, n_bytes=path.stat().st_size)

    def part(self, start: int, end: int, split: str | None = None, begins: bool = True) -> "Source":
        """A part of this file."""
        return dataclasses.replace(self, start=start, end=end, split=split, begins=begins)


@dataclass(frozen=True)
class ReadOptions:
    """How a corpus is read, the same for each of its files.

    Attributes:
        column: the text column of parquet, or field of JSONL; None to find it.
        val_fraction: the share of the documents that goes to validation.
        is_single: the corpus is one document, so its last part is validation.
        cut_texts: large text files may be cut: the tokenizer gives the parts the ids of the whole.
        skip_bad: leave out and count documents that can't be used.
        conversations: the documents are conversations; see `myna.data.conversations`.
        where: which rows are documents; None for all.
    """

    column: str | None = None
    val_fraction: float = 0.0
    is_single: bool = False
    cut_texts: bool = True
    skip_bad: bool = False
    conversations: bool = False
    where: RowFilter | None = None


def is_address(spec: str) -> bool:
    """Whether a spec is an address such as https://host/file."""
    return re.match(r"[a-z][a-z0-9+.-]+://", spec) is not None


def kind_of(name: str) -> tuple[str, str] | None:
    """A file name's (kind, compression), or None where the name alone does not tell.

    >>> kind_of("a/b.jsonl.zst"), kind_of("c.txt"), kind_of("d.pdf")
    (('jsonl', 'zst'), ('text', ''), None)
    >>> kind_of("openwebtext2.jsonl.zst.tar"), kind_of("notes.txt.tar")
    (('jsonl', 'tar'), None)
    >>> kind_of("c4-train.00000-of-01024.json.gz"), kind_of("package.json"), kind_of("CC-MAIN-1-00000.warc.wet.gz")
    (('jsonl', 'gz'), None, ('warc', 'gz'))
    """
    path = Path(name)
    if path.suffix.lower() == ".tar":
        return ("jsonl", "tar") if (kind_of(path.stem) or ("", ""))[0] == "jsonl" else None
    compression = COMPRESSIONS.get(path.suffix.lower(), "")
    kinds = KINDS | COMPRESSED_KINDS if compression else KINDS
    kind = kinds.get((path.with_suffix("") if compression else path).suffix.lower())
    return (kind, compression) if kind else None
