"""The prefetching thread: order, errors, and its end."""

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from myna.data.prefetch import Prefetcher
from myna.errors import DataError


def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for k in itertools.count():
        ids = np.full((2, 4), k, dtype=np.int64)
        yield ids[:, :-1], ids[:, 1:]


def test_batches_come_in_order_as_int64_tensors() -> None:
    with Prefetcher(endless()) as batches:
        for k in range(20):
            inputs, targets = next(batches)
            assert inputs.dtype == targets.dtype == torch.int64
            assert inputs.is_contiguous()
            assert inputs.shape == (2, 3)
            assert int(inputs[0, 0]) == k
    assert batches.wait_seconds >= 0
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_an_error_in_the_thread_reaches_its_reader_and_stays() -> None:
    def broken() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from itertools.islice(endless(), 2)
        raise DataError("shard gone")

    with Prefetcher(broken()) as batches:
        next(batches)
        next(batches)
        for _ in range(2):
            with pytest.raises(DataError, match="shard gone"):
                next(batches)


@pytest.mark.gpu
def test_batches_come_to_the_gpu_whole() -> None:
    with Prefetcher(endless(), "cuda") as batches:
        for k in range(200):
            inputs, targets = next(batches)
            assert inputs.device.type == targets.device.type == "cuda"
            assert bool((inputs == k).all())
