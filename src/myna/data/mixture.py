"""A mixture: the samples of several datasets behind the door of one.

Weights are whole numbers, so the order of the sources repeats: of weights 7 and 3, every 10 windows hold 7 of one
source and 3 of the other. `pattern` spreads the sources over these windows so that after every k windows each source
has had k times its share, within one window. The place of a sample in its own source is the number of samples that the
source gave before; there the source's own stream takes over (`batches.py`).

So sample k of a run is a function of the weights, the seed and k. The state is still one integer, and any world size
and any micro-batch see the same samples.

Source of the spreading: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): of the sources
that may be next without getting too far ahead, the one that would fall too far behind first. With n sources no count is
then more than 1 - 1/(2n - 2) windows from its share.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from myna.data.batches import Batch, Stream
from myna.data.split import Dataset
from myna.files import json_bytes, sha256_bytes

MOST_PARTS = 1_000_000


def whole_parts(weights: Sequence[Fraction]) -> list[int]:
    """Weights as whole numbers in lowest terms: exactly, where their sum is then at most `MOST_PARTS`.

    Other weights are rounded to so many parts of the whole; a weight above 0 stays above 0.

    Args:
        weights: 0 or more each, not all 0.

    >>> whole_parts([Fraction("0.7"), Fraction("0.3")]), whole_parts([Fraction(2), Fraction(4)])
    ([7, 3], [1, 2])
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    parts_in_all = math.lcm(*(share.denominator for share in shares))
    if parts_in_all <= MOST_PARTS:
        return [int(share * parts_in_all) for share in shares]
    rounded = [max(int(share > 0), round(share * MOST_PARTS)) for share in shares]
    return [part // math.gcd(*rounded) for part in rounded]


def pattern(parts: Sequence[int]) -> np.ndarray:
    """Which source each of sum(parts) windows is of; then it begins anew.

    Args:
        parts: windows of each source, above 0.
    Returns:
        (sum(parts),) uint16 numbers of sources. After k windows source i has had k * parts[i] / sum(parts), less or
        more than 1.

    >>> pattern([7, 3]).tolist()
    [0, 1, 0, 0, 0, 1, 0, 0, 1, 0]
    """
    period, scale = sum(parts), max(1, 2 * len(parts) - 2)
    chosen = np.empty(period, dtype=np.uint16)
    # Source i's sample j (from 0) may come at window k (from 1) as soon as k w >= j + 1/scale, w its share; and must by
    # the last k with k w <= j + 1 - 1/scale. In whole numbers, since k may be large.
    early = [(1, source) for source in range(len(parts))]
    ready: list[tuple[int, int]] = []
    given = [0] * len(parts)
    for number in range(1, period + 1):
        while early and early[0][0] <= number:
            _, source = heapq.heappop(early)
            due = ((given[source] + 1) * scale - 1) * period // (scale * parts[source])
            heapq.heappush(ready, (due, source))
        _, source = heapq.heappop(ready)
        chosen[number - 1] = source
        given[source] += 1
        first = -(-(given[source] * scale + 1) * period // (scale * parts[source]))
        heapq.heappush(early, (first, source))
    return chosen


@dataclass(frozen=True)
class Part:
    """A source of a mixture that is trained on.

    Attributes:
        parts: of the mixture's windows, see `whole_parts`.
    """

    name: str
    stream: Stream
    parts: int


class MixtureStream:
    """The samples of a run on a mixture, numbered 0, 1, 2, ... without end. See `Stream`.

    Attributes:
        windows_per_epoch: the windows of all sources together. After so many samples a source with a larger weight than
            its share of them was gone through more than once, and another less.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.windows_per_epoch = sum(part.stream.windows_per_epoch for part in parts)
        counts = [part.parts for part in parts]
        self.period, self._counts = sum(counts), np.array(counts, dtype=np.int64)
        self._pattern = pattern(counts)
        self._before = np.empty(self.period, dtype=np.int64)  # of its own source, in the period
        for source, count in enumerate(counts):
            self._before[self._pattern == source] = np.arange(count)

    def placed(self, first_sample: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Where some samples are from.

        Returns:
            (count,) numbers of sources, and (count,) int64 numbers of the samples in their own source.
        """
        periods, within = np.divmod(np.arange(first_sample, first_sample + count), self.period)
        sources = self._pattern[within]
        return sources, periods * self._counts[sources] + self._before[within]

    def _runs(self, first_sample: int, count: int) -> list[tuple[np.ndarray, Stream, int]]:
        """For each source: which of some samples are its own, its stream, and the number of the first there."""
        sources, places = self.placed(first_sample, count)
        own = [np.flatnonzero(sources == number) for number in range(len(self.parts))]
        return [
            (rows, part.stream, int(places[rows[0]]))
            for rows, part in zip(own, self.parts, strict=True)
            if len(rows)
        ]

    def n_targets(self, first_sample: int, count: int) -> int:
        """How many targets of some samples a loss counts."""
        return sum(stream.n_targets(at, len(rows)) for rows, stream, at in self._runs(first_sample, count))

    def batch(self, first_sample: int, count: int) -> Batch:
        """Samples first_sample to first_sample + count - 1, as the sources' own streams give them."""
        # A source's samples follow each other in its own stream, however they are spread here.
        found = [(rows, stream.batch(at, len(rows))) for rows, stream, at in self._runs(first_sample, count)]
        whole = tuple(np.empty((count, *part.shape[1:]), dtype=part.dtype) for part in found[0][1])
        for rows, batch in found:
            for to, part in zip(whole, batch, strict=True):
                to[rows] = part
        return whole


@dataclass(frozen=True)
class Source:
    """A dataset of a mixture.

    Attributes:
        name: the folder's.
        parts: of the mixture's windows; 0 where it is validated only.
    """

    name: str
    dataset: Dataset
    parts: int


@dataclass(frozen=True)
class Mixture:
    """What a run is trained on: one dataset, or several of one tokenizer, with weights.

    Attributes:
        sources: by name, so that the order in which they were given says nothing.
    """

    sources: tuple[Source, ...]

    @property
    def is_one(self) -> bool:
        """Whether it is a single dataset."""
        return len(self.sources) == 1

    @property
    def trained(self) -> list[Source]:
        """The sources that are trained on."""
        return [source for source in self.sources if source.parts]

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of the windows that each source has, by name."""
        period = sum(source.parts for source in self.sources)
        return {source.name: source.parts / period for source in self.sources}

    @property
    def identity(self) -> str:
        """What identifies it: of one dataset its own identity, of several theirs and their weights."""
        if self.is_one:
            return self.sources[0].dataset.identity
        return sha256_bytes(json_bytes([[one.dataset.identity, one.parts] for one in self.sources]))

    @property
    def has_conversations(self) -> bool:
        """Whether the documents are conversations."""
        return self.sources[0].dataset.has_conversations

    @property
    def n_tokens(self) -> int:
        """The training tokens of all sources that are trained on."""
        return sum(source.dataset.train.n_tokens for source in self.trained)

    def __str__(self) -> str:
        """In words, for a person."""
        if self.is_one:
            return str(self.sources[0].dataset.path)
        return shares_in_words(self.shares)


def shares_in_words(shares: Mapping[str, float]) -> str:
    """
    >>> shares_in_words({"web": 2 / 3, "code": 1 / 3})
    'web:0.666667 code:0.333333'
    """
    return " ".join(f"{name}:{share:.6g}" for name, share in shares.items())
