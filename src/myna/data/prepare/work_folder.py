"""Work in progress: DIR.partial, its lock, and the journal that says what in it is whole.

DIR.partial/journal.json    the call, and the assembler's state: the next chunk, the shards; replaced atomically
DIR.partial/inputs.jsonl    the files that were read: see `inputs.py`
DIR.partial/chunks/         encoded chunks that are not in a shard yet
DIR.partial/fetched/        remote files on their way
DIR.partial/.lock           held while a process works here; the system releases it when the process dies
"""

import contextlib
import errno
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from myna.data.prepare.inputs import first_difference
from myna.data.shards import open_dataset
from myna.errors import DownloadError, OutputError, Stopped
from myna.files import json_bytes, remove_empty, sweep, sync_directory, write_atomic
from myna.locks import locked
from myna.parsing import read_object
from myna.signals import signal_behind

LOCK = ".lock"
INPUTS = "inputs.jsonl"
OURS = re.compile(
    r"\.lock|journal\.json|inputs\.jsonl|dataset\.json|tokenizer\.json|chunks|fetched|(train|val)_\d+\.npy|\..*\.tmp"
)


class WorkFolder:
    """An unfinished dataset, locked by this process. See `locked_work_folder`.

    Attributes:
        path: the folder. inputs, chunks, fetched: a file and folders in it.
        journal: as last saved: the call and what was given to `save`; {} when the work is new.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inputs = path / INPUTS
        self.chunks = path / "chunks"
        self.fetched = path / "fetched"
        self.journal: dict[str, Any] = {}
        if (path / "journal.json").exists():
            self.journal = read_object(path / "journal.json", OutputError, f"remove {path} to begin again")

    def begin(self, call: dict[str, Any]) -> dict[str, Any]:
        """The state to go on from: what an earlier run of the same call saved, else {}.

        Raises:
            OutputError: another call began here.
        """
        before = self.journal.get("call", call)
        if wrong := ", ".join(key for key in call | before if before.get(key) != call.get(key)):
            raise OutputError(
                f"{self.path} holds an unfinished prepare by another call (different: {wrong}); "
                "finish that one, or remove it"
            )
        sweep(self.path)  # a journal that was half written when an earlier run was killed
        # Chunks that no shard has yet are encoded again: that takes seconds, and nobody knows whether they are whole.
        shutil.rmtree(self.chunks, ignore_errors=True)
        self.chunks.mkdir()
        if not self.journal:
            self.journal = {"call": call}
            self.save({})
        return self.journal

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the journal by the call and this state."""
        journal = {"call": self.journal["call"], **state}
        write_atomic(self.path / "journal.json", json_bytes(journal))
        self.journal = journal

    def publish(self, out: Path) -> None:
        """Gives the finished folder its name."""
        shutil.rmtree(self.chunks, ignore_errors=True)
        shutil.rmtree(self.fetched, ignore_errors=True)
        sync_directory(self.path)
        os.rename(self.path, out)
        tidy(out)  # not before: without its journal the work would begin anew after a signal
        sync_directory(out.parent)


@contextlib.contextmanager
def locked_work_folder(out: Path) -> Iterator[WorkFolder]:
    """Makes or finds OUT.partial and holds its lock.

    When the block fails, work that is of no use is removed, and the error says what was kept.

    Raises:
        OutputError: another process works there, or the place can't be written or is full.
        Stopped: Ctrl-C, or another signal.
    """
    path = out.with_name(out.name + ".partial")
    made: list[Path] = []
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        check_ours(path)
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror}; choose another --out") from error
    busy = f"another process is preparing {out}; wait for it, or choose another --out"
    with locked(path / LOCK, busy=busy) as descriptor:
        if not _is_same_file(descriptor, path / LOCK):  # it finished between our open and our lock
            raise OutputError(f"another process was preparing {out}; run the same command again")
        if (out / "dataset.json").exists():
            shutil.rmtree(path)
            raise OutputError(f"another process has just prepared {out}; run the same command again")
        work = WorkFolder(path)
        try:
            yield work
        except BaseException as error:
            left = _left_behind(work, out, error)
            remove_empty(made)
            raise left from error


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
    if not os.path.exists(out):
        return False
    if not (out / "dataset.json").is_file():
        if out.is_dir() and not any(out.iterdir()):
            return False
        raise OutputError(f"{out} exists and is no dataset of ours; choose another --out")
    info = open_dataset(out, verify=False).info
    made = {"tokenizer": info["tokenizer"], **info["source"]}
    wrong = [key for key in call if key != "files" and made.get(key) != call[key]]
    if other := first_difference(made.get("files", []), call.get("files", [])) if "files" in call else None:
        wrong.append(f"files, such as {other}")
    if wrong:
        raise OutputError(
            f"{out} was prepared by another call (different: {', '.join(wrong)}); choose another --out or remove it"
        )
    tidy(out)
    return True


def tidy(out: Path) -> None:
    """Removes what a finished dataset needs no more, and an interrupted `publish` may have left."""
    for name in ("journal.json", INPUTS, LOCK):
        (out / name).unlink(missing_ok=True)


def _left_behind(work: WorkFolder, out: Path, error: BaseException) -> BaseException:
    """What to raise for an error, after removing work that is of no use.

    Bad input before the first whole shard leaves nothing. A full disk, a lost connection or Ctrl-C leave what is whole.
    """
    journal = work.journal
    states = [journal.get("train", {}), journal.get("val", {})]
    begun = "position" in journal or any(work.fetched.glob("[0-9]*"))
    resumable = isinstance(error, OSError | OutputError | DownloadError | KeyboardInterrupt)
    if not any(state.get("shards") for state in states) and not (begun and resumable):
        shutil.rmtree(work.path, ignore_errors=True)
    tokens = sum(shard["tokens"] for state in states for shard in state.get("shards", []))
    tokens += sum(state.get("open_tokens", 0) for state in states)
    kept = f"run the same command again ({tokens:,} tokens are done)"
    cause = error if isinstance(error, OSError) else error.__cause__
    if number := signal_behind(error):
        return Stopped(f"stopped by {signal.Signals(number).name}; to go on, {kept}")
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"the disk is full at {out}; make room and {kept}")
    if isinstance(error, OSError):
        return OutputError(
            f"cannot write {error.filename or out}: {error.strerror or error}; choose another --out"
        )
    return error
