"""Work in progress: DIR.partial, its lock, and the journal that says what in it is whole.

DIR.partial/journal.json    the call, the next piece, the state of the shard writers; replaced atomically
DIR.partial/pieces/         encoded pieces that are not in a shard yet
DIR.partial/fetched/        remote files on their way
DIR.partial/.lock           held while a process works here; the kernel lets go of it when the process dies
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from myna.errors import OutputError
from myna.files import json_bytes, sync_directory, write_atomic

LOCK = ".lock"


class Partial:
    """An unfinished dataset, locked by this process. See `locked_partial`.

    Attributes:
        path: the folder. pieces, fetched: folders in it.
        journal: as last saved; {} when the work is new.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pieces = path / "pieces"
        self.fetched = path / "fetched"
        self.journal: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            try:
                self.journal = json.loads((path / "journal.json").read_bytes())
            except ValueError as error:
                raise OutputError(f"{path}/journal.json is damaged; remove {path} to begin again") from error

    def save(self, journal: dict[str, Any]) -> None:
        """Replaces the journal."""
        write_atomic(self.path / "journal.json", json_bytes(journal))
        self.journal = journal

    def remove(self) -> None:
        """Removes the work: it was of no use."""
        shutil.rmtree(self.path, ignore_errors=True)

    def publish(self, out: Path) -> None:
        """Gives the finished folder its name."""
        shutil.rmtree(self.pieces, ignore_errors=True)
        shutil.rmtree(self.fetched, ignore_errors=True)
        (self.path / "journal.json").unlink()
        sync_directory(self.path)
        os.rename(self.path, out)
        (out / LOCK).unlink()
        sync_directory(out.parent)


@contextlib.contextmanager
def locked_partial(out: Path) -> Iterator[Partial]:
    """Makes or finds OUT.partial and holds its lock.

    Raises:
        OutputError: another process works there, or the place can't be written.
    """
    path = out.with_name(out.name + ".partial")
    existed = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror}; choose another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is preparing {out}; wait for it, or choose another --out"
            ) from error
        if not _is_same_file(descriptor, path / LOCK):  # it finished between our open and our lock
            raise OutputError(f"another process was preparing {out}; run the same command again")
        partial = Partial(path)
        try:
            yield partial
        finally:
            if not existed and path.exists() and not partial.journal:
                partial.remove()
    finally:
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
