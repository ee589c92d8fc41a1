"""The files that a dataset is made of, held to their content: none changes unseen between two calls.

A worker hashes a file when it reads the first part of it (`encode.py`), so that the file comes from the disk once. The
names, fingerprints and hashes go to DIR.partial/inputs.jsonl, a line each. Lines are only added, and the journal
says how many bytes of them count. dataset.json keeps the hashes alone: it must be the same on every machine. The
fingerprints go to the user's cache, so that the next call need not read what has not changed.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from myna.data.sources.source import Source
from myna.data.verify import Hashed, hash_file, hash_files, remember
from myna.errors import OutputError
from myna.parsing import parse_json


class Inputs:
    """The hashes of a corpus's files, as far as they were read.

    Args:
        files: the corpus.
        path: the file of lines.
        n_bytes: how much of it the journal vouches for; 0 to begin.
    Raises:
        OutputError: a file that was read has other content now, or can't be read; or the lines are lost.
    """

    def __init__(self, files: Sequence[Source], path: Path, n_bytes: int) -> None:
        self._files = files
        self._path, self._n_bytes = path, n_bytes
        self._unsaved: list[bytes] = []
        self._hashes: dict[str, str] = {}
        self._here = {file.name: file.place for file in files if not file.is_remote}
        for name, known in self._lines():
            try:
                place = self._here.get(name)
                same = place is None or hash_file(place, known).sha256 == known.sha256
            except OSError as error:
                raise OutputError(
                    f"cannot read {name}: {error.strerror}; {path.parent} was begun with it, so see who may read it"
                ) from error
            if not same:
                raise OutputError(
                    f"{name} was changed since {path.parent} was begun with it (its SHA-256 differs); put the old "
                    f"content back, or remove {path.parent} to begin again"
                )
            self._hashes[name] = known.sha256

    def _lines(self) -> list[tuple[str, Hashed]]:
        if not self._n_bytes:
            return []
        try:
            data = self._path.read_bytes()[: self._n_bytes]
            lines = [parse_json(line) for line in data.splitlines()]
            found = [(str(name), Hashed(stamp, str(sha256))) for name, stamp, sha256 in lines]
        except (OSError, ValueError, TypeError):
            found, data = [], b""
        if len(data) != self._n_bytes:
            raise OutputError(f"{self._path} is damaged; remove {self._path.parent} to begin again")
        return found

    def knows(self, name: str) -> bool:
        """Whether the file was hashed."""
        return name in self._hashes

    def add(self, records: Iterable[Sequence[Any]]) -> None:
        """Takes what a chunk's record says of the files that begin in it."""
        for name, stamp, sha256 in records:
            self._hashes[name] = sha256
            self._unsaved.append(json.dumps([name, stamp, sha256]).encode() + b"\n")

    def save(self) -> int:
        """Flushes the lines to the disk; returns what a later `Inputs` needs to go on: their bytes."""
        data = b"".join(self._unsaved)
        with open(self._path, "r+b" if self._n_bytes else "wb") as file:
            file.seek(self._n_bytes)
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self._n_bytes += len(data)
        self._unsaved = []
        return self._n_bytes

    def finish(self, find: bool = True) -> list[dict[str, Any]]:
        """What dataset.json says of the files. The user's cache remembers them. For `find` see `described`."""
        remember({Path(self._here[name]): known for name, known in self._lines() if name in self._here})
        return described(self._files, self._hashes, find)


def described(files: Sequence[Source], hashes: Mapping[str, str], find: bool = True) -> list[dict[str, Any]]:
    """What dataset.json keeps of the files: enough to see that they are others now.

    Args:
        hashes: the SHA-256 of files that have no published one, by name.
        find: those of other files on this machine are found now, or remembered.
    Raises:
        DataError: a file can't be read.
    """
    missing = [
        Path(file.place)
        for file in files
        if find and file.is_hashed and not file.is_remote and file.name not in hashes
    ]
    found = hash_files(missing) if missing else {}
    entries = []
    for file in files:
        sha256 = file.sha256 or hashes.get(file.name) or found.get(Path(file.place))
        entry = {"file": file.name, "bytes": file.n_bytes, "sha256": sha256}
        entries.append({key: value for key, value in entry.items() if value is not None or key == "bytes"})
    return entries


def first_difference(made: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str | None:
    """The name of the first file that is not as it was; None where all are, as far as both sides say.

    >>> one = {"file": "a.txt", "bytes": 5, "sha256": "12"}
    >>> first_difference([one], [one | {"sha256": "34"}]), first_difference([{"file": "a.txt", "bytes": 5}], [one])
    ('a.txt', None)
    >>> first_difference([one], [one, one | {"file": "b.txt"}])
    'b.txt'
    """
    before, after = ({entry["file"]: entry for entry in entries} for entries in (made, now))
    for name in before | after:
        one, other = before.get(name), after.get(name)
        if one is None or other is None or any(one[key] != other[key] for key in one.keys() & other.keys()):
            return name
    return None
