"""Hashing many files once: in parallel, and remembered until a file changes.

The memory is one small JSON file a folder, in the user's cache. It keeps a file's size, modification and change
times and inode beside the hash. An edit changes at least one of them, even where the modification time was put
back: nobody but the kernel sets the change time. What is remembered saves time and decides nothing: a file whose
times changed is hashed again, and is the same file if its hash is.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from myna.errors import DataError, OutputError
from myna.files import cache_folder, sha256_bytes, sha256_file, write_atomic
from myna.parsing import parse_json

HASH_THREADS = 8


class Hashed(NamedTuple):
    """A file's hash, and its fingerprint before it was hashed."""

    fingerprint: list[int]
    sha256: str


def fingerprint(path: Path | str) -> list[int]:
    """What changes when a file does: size, modification time, change time, inode."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def hash_file(
    path: Path | str, known: Hashed | None = None, *, before_piece: Callable[[], None] | None = None
) -> Hashed:
    """A file's hash now; the known one where the fingerprint is still the same.

    Args:
        before_piece: see `sha256_file`.
    Raises:
        OSError: it can't be read.
    """
    before = fingerprint(path)
    if known is not None and known.fingerprint == before:
        return known
    return Hashed(before, sha256_file(path, before_piece))


def hash_files(paths: Sequence[Path], fresh: bool = False) -> dict[Path, str]:
    """The SHA-256 of each file.

    Args:
        fresh: hash all, whatever is remembered.
    Raises:
        DataError: a file can't be read.
    """
    known = {} if fresh else {folder: _remembered(folder) for folder in {path.parent for path in paths}}

    given_up = threading.Event()

    def go_on() -> None:
        if given_up.is_set():
            raise DataError(
                f"stopped while the files of {paths[0].parent} were verified; run the same command again"
            )

    def digest(path: Path) -> Hashed:
        try:
            match known.get(path.parent, {}).get(path.name):
                case [list(stamp), str(sha256)]:
                    return hash_file(path, Hashed(stamp, sha256), before_piece=go_on)
            return hash_file(path, before_piece=go_on)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; see who may read it") from error

    with ThreadPoolExecutor(min(HASH_THREADS, os.cpu_count() or 1)) as pool:
        try:
            found = dict(zip(paths, pool.map(digest, paths), strict=True))
        finally:  # after a signal, or one file that can't be read, the pool waits for a piece, not for the files
            given_up.set()
    remember(found)
    return {path: hashed.sha256 for path, hashed in found.items()}


def remember(found: Mapping[Path, Hashed]) -> None:
    """Adds to the memory, and drops from its folders what is no longer there. No error where it can't be written."""
    folders: dict[Path, dict[str, list]] = {}
    for path, hashed in found.items():
        folders.setdefault(path.parent, {})[path.name] = list(hashed)
    for folder, inside in folders.items():
        before = _remembered(folder)
        after = {name: e for name, e in before.items() if name in inside or os.path.exists(folder / name)}
        after |= inside
        if after != before:
            with contextlib.suppress(OutputError, OSError):  # no cache costs time, not correctness
                write_atomic(_memory_of(folder), json.dumps(after).encode())


def _memory_of(folder: Path) -> Path:
    return cache_folder() / "verified" / f"{sha256_bytes(os.fsencode(folder.resolve()))}.json"


def _remembered(folder: Path) -> dict[str, list]:
    """A folder's memory: [fingerprint, SHA-256] by name; {} where there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        loaded = parse_json(_memory_of(folder).read_bytes())
        if isinstance(loaded, dict):
            return loaded
    return {}
