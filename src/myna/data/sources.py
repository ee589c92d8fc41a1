"""One file of a corpus: its name, where it lies, and what its name says it holds."""

import re
from dataclasses import dataclass
from pathlib import Path

KINDS = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
SUFFIXES = ".txt .md .jsonl .parquet (also .gz .zst)"


@dataclass(frozen=True)
class SourceFile:
    """One file of a corpus.

    Attributes:
        name: what the dataset's record calls it; the same on every machine that gives the same corpus.
        place: where it lies: a local path, an address, or a path in the hub's repository.
        kind: "text" (one document), "jsonl" (one a line), "parquet" (one a row) or "pydoc".
        compression: "", "gz" or "zst".
        n_bytes: its size, None where only a download can tell.
        repository, revision, sha256: of a file on the hub.
    """

    name: str
    place: str
    kind: str
    compression: str = ""
    n_bytes: int | None = None
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it must be fetched before it can be read."""
        return self.repository is not None or is_address(self.place)


def is_address(spec: str) -> bool:
    """Whether a spec is an address such as https://host/file."""
    return re.match(r"[a-z][a-z0-9+.-]+://", spec) is not None


def kind_of(name: str) -> tuple[str, str] | None:
    """A file name's (kind, compression), or None for a name that no reader takes.

    >>> kind_of("a/b.jsonl.zst"), kind_of("c.txt"), kind_of("d.pdf")
    (('jsonl', 'zst'), ('text', ''), None)
    """
    path = Path(name)
    compression = COMPRESSIONS.get(path.suffix.lower(), "")
    kind = KINDS.get((path.with_suffix("") if compression else path).suffix.lower())
    return (kind, compression) if kind else None
