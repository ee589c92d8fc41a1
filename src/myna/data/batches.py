"""This file decides which ids sample number k has. The order of training is the same for any number of ranks.

The train shards together are one stream of N ids, read as a ring: after the last id comes the first. Each epoch draws
a start at random. From there it cuts the ring into ceil(N/T) windows of T+1 ids at stride T. It visits the windows in
the order of a keyed permutation. So in an epoch each window comes once, and each id is a target once. (Where the ring
closes, fewer than T ids are targets twice.)

In sequential order, each epoch visits the windows from the stream's first id on, as the lecture's loader does.

Sample k of a run depends on (seed, k) alone. A step takes the next G samples. Each of the W ranks takes one contiguous
part of these. The only state is the number of samples consumed. `prefetch.py` loads ahead and hands out torch tensors.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np

from myna.data.permutation import ROUNDS, permute
from myna.data.split import Split
from myna.errors import DataError, UsageError
from myna.settings import Order

# As in llm.c's run (see myna.reference_curves): 20 times 524,288.
VALIDATION_TARGETS = 10_485_760

# Inputs (B, T) and targets (B, T). If several texts share a window, also (B, T): each id's position in its own text.
Batch = tuple[np.ndarray, ...]


class Stream(Protocol):
    """The samples of a run, numbered 0, 1, 2, ... without end: a function of the data and the seed.

    Attributes:
        windows_per_epoch: samples in one pass over the data.
    """

    windows_per_epoch: int

    def batch(self, first_sample: int, count: int) -> Batch:
        """Samples first_sample to first_sample + count - 1."""

    def n_targets(self, first_sample: int, count: int) -> int:
        """How many targets of these samples the loss counts."""


@lru_cache(maxsize=64)
def epoch_draw(seed: int, epoch: int) -> tuple[int, np.ndarray]:
    """An epoch's 64 random bits for its start, and its (ROUNDS,) uint64 permutation keys, from (seed, epoch) alone."""
    digest = hashlib.shake_256(f"myna epoch {seed} {epoch}".encode()).digest(8 * (1 + ROUNDS))
    draw = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    return int(draw[0]), draw[1:]


def windows_of_samples(
    first_sample: int, count: int, per_epoch: int, *, seed: int, order: Order
) -> Iterator[tuple[int, np.ndarray]]:
    """The windows of `count` samples, beginning with sample `first_sample`.

    Yields:
        one item for each epoch that the samples touch: 64 random bits for the epoch's start (0 in sequential order),
        and the numbers of the windows in the order of the samples.
    """
    while count:
        epoch, within = divmod(first_sample, per_epoch)
        take = min(count, per_epoch - within)
        numbers = np.arange(within, within + take)
        if order == "sequential":
            yield 0, numbers
        else:
            start_bits, keys = epoch_draw(seed, epoch)
            yield start_bits, permute(numbers, per_epoch, keys)
        first_sample, count = first_sample + take, count - take


class TrainStream:
    """The samples of a run, numbered 0, 1, 2, ... without end.

    Args:
        split: the train split of an open dataset.
        sequence_length: T, ids per input window.
        seed: any integer; another seed gives another order. Sequential order ignores it.
    Raises:
        DataError: the split has fewer than T + 1 ids.
    """

    def __init__(self, split: Split, sequence_length: int, seed: int, *, order: Order = "shuffled") -> None:
        if sequence_length < 1:
            raise UsageError(f"a sequence length of {sequence_length} is not possible; give 1 or more")
        if split.n_tokens < sequence_length + 1:
            raise DataError(
                f"{split.place} has {split.n_tokens:,} ids, and one window needs {sequence_length + 1:,}; "
                "prepare more text or use a shorter sequence length"
            )
        self.split = split
        self.sequence_length = sequence_length
        self.seed, self.order = seed, order
        self.windows_per_epoch = -(-split.n_tokens // sequence_length)

    def windows(self, first_sample: int, count: int) -> np.ndarray:
        """Where the windows of samples first_sample, first_sample + 1, ... begin in the stream: (count,) int64."""
        starts, done = np.empty(count, dtype=np.int64), 0
        for start_bits, numbers in windows_of_samples(
            first_sample, count, self.windows_per_epoch, seed=self.seed, order=self.order
        ):
            offset = start_bits % self.split.n_tokens
            starts[done : done + len(numbers)] = (
                offset + numbers * self.sequence_length
            ) % self.split.n_tokens
            done += len(numbers)
        return starts

    def window(self, k: int) -> int:
        """Where sample k's window begins in the stream."""
        return int(self.windows(k, 1)[0])

    def n_targets(self, first_sample: int, count: int) -> int:
        """How many targets of these samples the loss counts: all."""
        return count * self.sequence_length

    def batch(self, first_sample: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples first_sample to first_sample + count - 1.

        Returns:
            inputs (count, T) and targets (count, T), int64. Each target is the id after its input. Two views of one
            array.
        """
        ids = np.empty((count, self.sequence_length + 1), dtype=np.int64)
        for row, start in zip(ids, self.windows(first_sample, count), strict=True):
            row[:] = self.split.read(int(start), self.sequence_length + 1, ring=True)
        return ids[:, :-1], ids[:, 1:]


def rank_share(first_sample: int, step_samples: int, rank: int, world_size: int) -> tuple[int, int]:
    """One rank's part of a step's samples: (the first sample, how many).

    Raises:
        UsageError: the samples of the step don't divide among the ranks.

    >>> [rank_share(100, 8, rank, 2) for rank in (0, 1)]
    [(100, 4), (104, 4)]
    """
    if step_samples % world_size:
        raise UsageError(
            f"a step of {step_samples} samples does not divide among {world_size} ranks; change the batch size"
        )
    count = step_samples // world_size
    return first_sample + rank * count, count


def micro_batches(
    stream: Stream,
    consumed: int,
    step_samples: int | Callable[[int], int],
    micro_batch: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """One rank's micro-batches, step after step, without end.

    Args:
        consumed: samples that the run has already taken: where to begin.
        step_samples: samples a step takes over all ranks; or a function of the samples consumed, as `Ramp.at` is.
        micro_batch: samples per item. A step of S samples is S / world_size / micro_batch items.
    Yields:
        what the stream gives for `micro_batch` samples.
    Raises:
        UsageError: a step doesn't divide among the ranks, or a rank's part into micro-batches.
    """
    while True:
        samples = step_samples if isinstance(step_samples, int) else step_samples(consumed)
        first, count = rank_share(consumed, samples, rank, world_size)
        if count % micro_batch:
            raise UsageError(
                f"a rank's {count} samples of a step do not divide into micro-batches of {micro_batch}; change "
                "--micro-batch or --batch-tokens"
            )
        for at in range(first, first + count, micro_batch):
            yield stream.batch(at, micro_batch)
        consumed += samples


def val_windows(
    split: Split,
    sequence_length: int,
    limit: int = VALIDATION_TARGETS,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows from the split's beginning on, in order. Their targets don't overlap: each target is scored once.

    Args:
        limit: score at most this many targets, over all ranks.
        rank, world_size: this rank gets windows rank, rank + world_size, ...
    Yields:
        inputs and targets, each (T,) int64. The last window may be shorter, at the split's end or at the limit.
    """
    targets = min(limit, max(split.n_tokens - 1, 0))
    for start in range(rank * sequence_length, targets, world_size * sequence_length):
        ids = split.read(start, min(sequence_length, targets - start) + 1)
        yield ids[:-1], ids[1:]
