"""Hashing many files once: in parallel, and remembered until a file changes.

The memory is one small JSON file a folder, in the user's cache. It keeps a file's size, modification and change
times and inode beside the hash. An edit changes at least one of them, even where the modification time was put
back: nobody but the kernel sets the change time.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from myna.errors import DataError, OutputError
from myna.files import cache_folder, json_bytes, sha256_bytes, sha256_file, write_atomic
from myna.parsing import parse_json

HASH_THREADS = 8


def fingerprint(path: Path) -> list[int]:
    """What changes when a file does: size, modification time, change time, inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def hash_files(paths: Sequence[Path], fresh: bool = False) -> dict[Path, str]:
    """The SHA-256 of each file of one folder.

    Args:
        fresh: hash all, whatever is remembered.
    Raises:
        DataError: a file can't be read.
    """
    if not paths:
        return {}
    memory = cache_folder() / "verified" / f"{sha256_bytes(os.fsencode(paths[0].parent.resolve()))}.json"
    known: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError):
        loaded = parse_json(memory.read_bytes())
        known = loaded if isinstance(loaded, dict) and not fresh else {}

    given_up = threading.Event()

    def go_on() -> None:
        if given_up.is_set():
            raise DataError(
                f"stopped while the files of {paths[0].parent} were verified; run the same command again"
            )

    def digest(path: Path) -> tuple[list[int], str]:
        try:
            before = fingerprint(path)
            entry = known.get(path.name)
            if isinstance(entry, list) and entry[:1] == [before]:
                return before, str(entry[1])
            return before, sha256_file(path, go_on)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; prepare the dataset again") from error

    with ThreadPoolExecutor(min(HASH_THREADS, os.cpu_count() or 1)) as pool:
        try:
            found = dict(zip(paths, pool.map(digest, paths), strict=True))
        finally:  # after a signal, or one file that can't be read, the pool waits for a piece, not for the files
            given_up.set()
    remembered = {path.name: [before, sha256] for path, (before, sha256) in found.items()}
    if remembered != known:
        with contextlib.suppress(OutputError):  # a cache that can't be written costs time, not correctness
            write_atomic(memory, json_bytes(remembered))
    return {path: sha256 for path, (_, sha256) in found.items()}
