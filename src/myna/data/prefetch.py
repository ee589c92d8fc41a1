"""Batches made ahead of time in a thread, so that the accelerator never waits for its input.

Reading a file and casting an array release the interpreter lock, so one thread is enough: a batch of 64 x 1024 ids
takes about a millisecond to compute, and a training step hundreds.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from myna.data.batches import Batch

Tensors = tuple[Tensor, ...]


class Prefetcher(Iterator[Tensors]):
    """Runs an iterator of NumPy batches in a thread and hands out the same as torch int64 tensors on `device`.

    For CUDA the tensors wait in pinned memory and are copied without blocking. An error in the thread is raised by
    the `next` that would have got its batch. Close it (or use `with`) to end the thread.

    Attributes:
        wait_seconds: the total time that `next` had to wait for the thread.

    >>> pairs = iter([(np.zeros((1, 2), dtype=np.int64), np.ones((1, 2), dtype=np.int64))])
    >>> with Prefetcher(pairs) as batches:
    ...     [targets.tolist() for inputs, targets in batches]
    [[[1, 1]]]
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        device: str | torch.device = "cpu",
        depth: int = 4,
    ) -> None:
        self.device = torch.device(device)
        if self.device == torch.device("cuda"):  # no index: the current one
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.wait_seconds = 0.0
        self._queue: queue.Queue[Tensors | BaseException] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._last: BaseException | None = None
        self._thread = threading.Thread(
            target=self._fill, args=(iter(batches),), name="prefetch", daemon=True
        )
        self._thread.start()

    def _fill(self, batches: Iterator[Batch]) -> None:
        try:
            if self.device.type == "cuda":  # else this thread pins through GPU 0, whatever the rank
                torch.cuda.set_device(self.device)
            for batch in batches:
                if not self._put(tuple(map(self._tensor, batch))):
                    return
            self._put(StopIteration())
        except BaseException as error:  # handed over, so that the training loop sees it
            self._put(error)

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _put(self, item: Tensors | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __next__(self) -> Tensors:
        if self._last is not None:
            raise self._last
        began = time.perf_counter()
        item = self._queue.get()
        self.wait_seconds += time.perf_counter() - began
        if isinstance(item, BaseException):
            self._last = item
            raise item
        return tuple(part.to(self.device, non_blocking=True) for part in item)

    def close(self) -> None:
        """Ends the thread; batches made ahead are dropped."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
