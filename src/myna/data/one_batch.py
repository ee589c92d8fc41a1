"""One batch again and again: what `myna train --overfit` learns by heart."""

from collections.abc import Iterator

import numpy as np

from myna.data.batches import Batch, Stream


class OneBatch:
    """The first samples of a stream, without end.

    Args:
        stream: whose samples they are.
        samples: how many: those of one step.
    """

    def __init__(self, stream: Stream, samples: int) -> None:
        self.stream, self.samples = stream, samples
        self.windows_per_epoch = samples

    def batch(self, first_sample: int, count: int) -> Batch:
        """Samples first_sample to first_sample + count - 1."""
        parts = [self.stream.batch(first, some) for first, some in self._pieces(first_sample, count)]
        return parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))

    def n_targets(self, first_sample: int, count: int) -> int:
        """How many targets of some samples a loss counts."""
        return sum(self.stream.n_targets(first, some) for first, some in self._pieces(first_sample, count))

    def _pieces(self, first_sample: int, count: int) -> Iterator[tuple[int, int]]:
        while count:
            first = first_sample % self.samples
            some = min(count, self.samples - first)
            yield first, some
            first_sample, count = first_sample + some, count - some

    def least_loss(self) -> float:
        """The mean loss that no model can go below, nats per token: windows that begin alike can go on differently.

        0 where windows hold several texts, or targets that are not scored: nobody counts there.
        """
        inputs, targets, *more = self.batch(0, self.samples)
        return 0.0 if more or (targets < 0).any() else least_loss(inputs, targets)


def least_loss(inputs: np.ndarray, targets: np.ndarray) -> float:
    """The mean entropy of each target, given all ids before it in its row.

    Shapes:
        inputs, targets  (B, T)  integers, 0 or more

    >>> round(least_loss(np.array([[7, 1], [7, 2]]), np.array([[1, 3], [2, 3]])), 4)  # 2 of 4 targets are a coin's
    0.3466
    """
    alike = np.zeros(len(inputs), dtype=np.int64)  # rows with equal numbers were equal so far
    nats = 0.0
    for ids, ends in zip(inputs.T, targets.T, strict=True):
        _, alike = np.unique(np.stack([alike, ids]), axis=1, return_inverse=True)
        alike = alike.reshape(-1)
        if alike.max(initial=-1) + 1 == len(alike):  # all rows are told apart
            break
        _, which, counts = np.unique(np.stack([alike, ends]), axis=1, return_inverse=True, return_counts=True)
        nats -= float(np.log(counts[which.reshape(-1)] / np.bincount(alike)[alike]).sum())
    return nats / targets.size
