"""Checkpoints on the way: a snapshot is copied at once, a thread writes it while the steps go on.

The copy is complete before the next update can change a weight; the write may take as long as it likes. One is
in flight at most: a second waits for the first. An error of the writer is the run's error.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from myna.errors import MynaError
from myna.files import remove_directory
from myna.model.checkpoint import checkpoint_name, checkpoint_step, list_checkpoints, save_checkpoint, verify
from myna.model.config import GPTConfig
from myna.text.tokenizer import Tokenizer
from myna.train.copies import Copier


class Buffers:
    """Memory of the host that snapshots are copied into, kept from one to the next; pinned for a GPU's copies."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, key: str, tensor: Tensor) -> Tensor:
        """A copy of a tensor under a key. From a GPU it is under way: `wait` before reading it."""
        tensor = tensor.detach()
        if key not in self._held:
            self._held[key] = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
            )
        self._held[key].copy_(tensor, non_blocking=tensor.device.type == "cuda")
        if tensor.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()
        return self._held[key]

    def wait(self) -> None:
        """Until every copy so far is there."""
        if self._copied is not None:
            self._copied.synchronize()


@dataclass(frozen=True)
class Snapshot:
    """A step as it will be saved: copies that nothing else writes to."""

    step: int
    config: GPTConfig
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


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


def checkpoint_bytes(n_parameters: int, averaged: bool = False) -> int:
    """About what a checkpoint takes on the disk: weights, their average, two moments, in fp32; the rest is small.

    >>> checkpoint_bytes(124_439_808)
    1493277696
    """
    return (4 if averaged else 3) * 4 * n_parameters


class Saver:
    """Writes snapshots to a run's checkpoints, in the background. Only the main rank has work for it.

    Args:
        say: told what a person should know.
        copier: takes each finished checkpoint somewhere else, if given.
    """

    def __init__(
        self,
        directory: Path,
        tokenizer: Tokenizer,
        retention: Retention,
        say: Callable[[str], None],
        copier: Copier | None = None,
    ):
        self.directory, self.tokenizer, self.retention, self.say = directory, tokenizer, retention, say
        self.copier = copier
        self.buffers = Buffers()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def failed(self) -> bool:
        """Whether a write has failed that `join` has not yet reported."""
        return self._error is not None

    def begin(self, snapshot: Snapshot) -> None:
        """Starts to write a snapshot made of this saver's buffers. Call `join` before filling them.

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
            self.buffers.wait()
            path = self.directory / checkpoint_name(snapshot.step)
            save_checkpoint(
                path, snapshot.config, snapshot.weights, self.tokenizer, snapshot.moments, snapshot.state
            )
            if self.copier is not None:
                self.copier.add(path)
            self.prune(path)
        except BaseException as error:  # whatever it is, the run must hear of it
            self._error = error

    def prune(self, newest: Path) -> None:
        """Removes what retention doesn't keep, after reading the newest back: one that isn't sound replaces none.

        Raises:
            CheckpointError: the newest is damaged already. OutputError: something can't be removed.
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
        try:
            self.join()
        except MynaError as own:
            if kind is None:
                raise
            self.say(f"and the last checkpoint was not written: {own}")  # beside the error on its way out
        finally:
            if self.copier is not None:
                self.copier.finish()
