"""Work in progress: DIR.partial, its lock, and the journal that says what in it is whole.

DIR.partial/journal.json    the call, the next piece, the state of the shard writers; replaced atomically
DIR.partial/pieces/         encoded pieces that are not in a shard yet
DIR.partial/fetched/        remote files on their way
DIR.partial/.lock           held while a process works here; the kernel lets go of it when the process dies
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from myna.data.shards import open_dataset
from myna.errors import DownloadError, OutputError, Stopped
from myna.files import json_bytes, sync_directory, write_atomic

LOCK = ".lock"
OURS = re.compile(
    r"\.lock|journal\.json|dataset\.json|tokenizer\.json|pieces|fetched|(train|val)_\d+\.npy|\..*\.tmp"
)


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

    def begin(self, call: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        """The journal to go on from: an earlier one of the same call, else `fresh`.

        Raises:
            OutputError: another call began here.
        """
        if self.journal and self.journal["call"] != call:
            wrong = ", ".join(key for key in call if self.journal["call"].get(key) != call[key])
            raise OutputError(
                f"{self.path} holds an unfinished prepare by another call (different: {wrong}); "
                "finish that one, or remove it"
            )
        if not self.journal:
            self.save({"call": call, **fresh})
        return self.journal

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

    When the block fails, work that is of no use is removed, and the error says what was kept.

    Raises:
        OutputError: another process works there, or the place can't be written or is full.
        Stopped: Ctrl-C.
    """
    path = out.with_name(out.name + ".partial")
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_ours(path)
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
        if (out / "dataset.json").exists():
            shutil.rmtree(path)
            raise OutputError(f"another process has just prepared {out}; run the same command again")
        partial = Partial(path)
        try:
            yield partial
        except BaseException as error:
            raise _left_behind(partial, out, error) from error
    finally:
        os.close(descriptor)


def check_ours(path: Path) -> None:
    """Refuses a folder that no prepare left, before anything in it is touched.

    Before its journal, and after it, an unfinished prepare has its lock and nothing but what it makes.

    Raises:
        OutputError: it holds something else.
    """
    names = {file.name for file in path.iterdir()}
    if names and not (LOCK in names and ("journal.json" in names or all(map(OURS.fullmatch, names)))):
        raise OutputError(
            f"{path} exists and no prepare made it, and its name is needed for work in progress; "
            "move it away, or choose another --out"
        )


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def already_done(out: Path, call: dict[str, Any]) -> bool:
    """Whether `out` is what this call makes, as far as its dataset.json tells.

    Raises:
        OutputError: it is something else.
    """
    if not out.exists():
        return False
    if not (out / "dataset.json").is_file():
        if out.is_dir() and not any(out.iterdir()):
            return False
        raise OutputError(f"{out} exists and is no dataset of ours; choose another --out")
    info = open_dataset(out, verify=False).info
    made = {"tokenizer": info["tokenizer"], **info["source"]}
    wrong = [key for key in call if made.get(key) != call[key]]
    if wrong:
        raise OutputError(
            f"{out} was prepared by another call (different: {', '.join(wrong)}); choose another --out or remove it"
        )
    (out / LOCK).unlink(missing_ok=True)
    return True


def _left_behind(partial: Partial, out: Path, error: BaseException) -> BaseException:
    """What to raise for an error, after removing work that is of no use.

    Bad input before the first whole shard leaves nothing. A full disk, a lost connection or Ctrl-C leave what is whole.
    """
    journal = partial.journal
    states = [journal.get("train", {}), journal.get("val", {})]
    begun = journal.get("position", [0, 0]) != [0, 0] or any(partial.pieces.glob("*.json"))
    resumable = isinstance(error, OSError | OutputError | DownloadError | KeyboardInterrupt)
    if not any(state.get("shards") for state in states) and not (begun and resumable):
        partial.remove()
    tokens = sum(shard["tokens"] for state in states for shard in state.get("shards", []))
    tokens += sum(state.get("open_tokens", 0) for state in states)
    kept = f"run the same command again ({tokens:,} tokens are done)"
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(error, KeyboardInterrupt):
        return Stopped(f"stopped; to go on, {kept}")
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"the disk is full at {out}; make room and {kept}")
    if isinstance(error, OSError):
        return OutputError(
            f"cannot write {error.filename or out}: {error.strerror or error}; choose another --out"
        )
    return error
