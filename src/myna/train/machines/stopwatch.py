"""How long parts of a step take on the device that computes them, without waiting for it."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

# Times the block that it is put around, under a name.
Timed = Callable[[str], contextlib.AbstractContextManager[None]]


def not_timed(name: str) -> contextlib.AbstractContextManager[None]:
    """Where there is no stopwatch."""
    return contextlib.nullcontext()


class Stopwatch:
    """Adds up the seconds of named parts.

    On a CPU by the clock: work is done when the call returns. On CUDA by events in the stream of work, which the device
    passes in its own time; only `take` waits for them. On other devices it stays off.

    Attributes:
        on: whether it times. At first on a CPU alone: events that nobody takes would pile up.
    """

    def __init__(self, device: torch.device):
        self.device, self.on = device, device.type == "cpu"
        self._seconds: dict[str, float] = {}
        self._passed: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times the block. A block may stand in another one of another name."""
        if not self.on:
            yield
        elif self.device.type == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            yield
            ended.record()
            self._passed.append((name, began, ended))
        else:
            start = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - start)

    def take(self) -> dict[str, float]:
        """The seconds of each part since they were last taken. Where they are events, waits until they have passed."""
        for name, began, ended in self._passed:
            ended.synchronize()
            self._add(name, began.elapsed_time(ended) / 1e3)
        taken, self._seconds = self._seconds, {}
        self._passed.clear()
        return taken

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
