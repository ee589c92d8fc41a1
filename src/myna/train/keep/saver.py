"""Checkpoints on the way: a snapshot is copied at once, a thread writes it while the steps go on.

The copy is complete before the next update can change a weight; the write may take as long as it likes. One is
in flight at most: a second waits for the first. An error of the writer is the run's error.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from myna.errors import CheckpointError, UnreadableError
from myna.files import remove_directory
from myna.model.checkpoint import checkpoint_name, checkpoint_step, list_checkpoints, save_checkpoint, verify
from myna.model.network import Network
from myna.signals import signal_behind
from myna.text.tokenizer import Tokenizer
from myna.train.keep.copies import Copier
from myna.train.keep.snapshot import Snapshot


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay."""

    keep_last: int = 0  # the newest so many; 0: all
    keep_every: int = 0  # and those of steps that this divides; 0: none

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Those of the given steps that stay; the newest is always one.

        >>> sorted(Retention(keep_last=2, keep_every=100).kept([50, 100, 150, 200, 250, 300]))
        [100, 200, 250, 300]
        """
        if self.keep_last == 0:
            return set(steps)
        every = {step for step in steps if self.keep_every and step % self.keep_every == 0}
        return every | set(sorted(steps)[-self.keep_last :])

    def most(self, steps: int, every: int) -> int:
        """At most how many stay of a run that makes one each `every` steps, and one at its end.

        >>> Retention(keep_last=2, keep_every=100).most(steps=320, every=50)
        5
        """
        made = -(-steps // every)
        if self.keep_last == 0:
            return made
        return min(
            made, self.keep_last + (steps // math.lcm(every, self.keep_every) if self.keep_every else 0)
        )


class Saver:
    """Writes snapshots to a run's checkpoints, in the background. Only the main rank has work for it.

    Args:
        network: whose names and layout the files get.
        files: small files of each checkpoint, see `config_files`.
        say: told what a person should know.
        on_saved: told the step and name of each finished checkpoint, in the writer's thread.
        copier: takes each finished checkpoint somewhere else, if given.
        newest: the run's newest checkpoint so far, if it has one; afterwards the newest that was written and, where
            retention read it back, was sound.
    """

    def __init__(
        self,
        directory: Path,
        network: Network,
        files: Mapping[str, bytes],
        tokenizer: Tokenizer,
        retention: Retention,
        *,
        say: Callable[[str], None],
        on_saved: Callable[[Snapshot, Path], None] = lambda snapshot, path: None,
        copier: Copier | None = None,
        newest: Path | None = None,
    ):
        self.directory, self.network, self.files, self.tokenizer = directory, network, files, tokenizer
        self.retention, self.say, self.on_saved, self.copier = retention, say, on_saved, copier
        self.newest = newest
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def failed(self) -> bool:
        """Whether a write has failed that `join` has not yet reported."""
        return self._error is not None

    def begin(self, snapshot: Snapshot) -> None:
        """Starts to write a snapshot. Call `join` before its copies are made again.

        Raises:
            OutputError: what the write before met.
        """
        self.join()
        # Not a daemon: should the process end by an error elsewhere, the write is still finished.
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint writer")
        self._thread.start()

    def join(self) -> None:
        """Waits for the write in flight.

        Raises:
            OutputError: it failed. Told once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self, seconds: float) -> None:
        """Gives the write in flight so long to end, whatever comes of it."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _write(self, snapshot: Snapshot) -> None:
        try:
            snapshot.wait()
            path = self.directory / checkpoint_name(snapshot.state.step)
            save_checkpoint(
                path,
                self.network,
                files=self.files,
                weights=snapshot.weights,
                tokenizer=self.tokenizer,
                tensors=snapshot.tensors,
                state=snapshot.state.to_dict(),
            )
            before, self.newest = self.newest, path
            self.on_saved(snapshot, path)
            if self.copier is not None:
                self.copier.add(path)
            try:
                self.prune(path)
            except (CheckpointError, UnreadableError):
                self.newest = before
                raise
        except BaseException as error:  # whatever it is, the run must hear of it
            self._error = error

    def prune(self, newest: Path) -> None:
        """Removes what retention doesn't keep, after reading the newest back: one that isn't sound replaces none.

        Raises:
            CheckpointError: the newest is damaged already. UnreadableError: it can't be read back.
            OutputError: something can't be removed.
        """
        paths = {checkpoint_step(path): path for path in list_checkpoints(self.directory)}
        older = {step: path for step, path in paths.items() if step <= checkpoint_step(newest)}
        going = sorted(older.keys() - self.retention.kept(list(older)))
        if not going:
            return
        verify(newest)
        for step in going:
            if self.copier is None or not self.copier.busy(older[step]):
                remove_directory(older[step])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ends = {"written": self.join}
        if self.copier is not None and signal_behind(error) is None:  # a signal waits for no copy
            ends["copied"] = self.copier.finish
        first = error
        for what, end in ends.items():
            try:
                end()
            except Exception as own:
                if first is None:
                    first = own
                else:  # beside the error on its way out
                    self.say(f"and the last checkpoint was not {what}: {own}")
        if error is None and first is not None:
            raise first
