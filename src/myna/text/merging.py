"""Learning merges at corpus size: `bpe.train`'s rule and result, on flat arrays.

The unique pre-tokens lie end to end in one array, and links lead to the next and previous live token. A merge of a
frequent pair is a few array operations over the places where the pair stands. Of 50,000 merges 95% are of pairs that
stand in fewer than a hundred places. For those a loop over the places is faster, since an array operation takes some
microseconds however short the array is. Tests compare both ways with `bpe.train`, merge by merge.
"""

import heapq
from collections.abc import Callable, Mapping

import numpy as np

from myna.text.bpe import Pair

BORDER = -1  # lies between pre-tokens, and is the neighbour of a first and of a last token
# At most so many places are merged in a loop. Of the limits tried, from 0 to 256, 96 was the fastest on text of 60 MB.
# With 64 to 128 the times were within a tenth of it.
FEW = 96
LEFT_BITS = 32  # a pair as one integer: left << 32 | right, so that integers compare as pairs do
PAIR_BITS = 64
PAIR_MASK = (1 << PAIR_BITS) - 1


class Corpus:
    """The pre-tokens as linked tokens, P places in all.

    Attributes:
        tokens   (P,) int32 the id at a place; BORDER between pre-tokens, and at a place that a merge has used up (no
                 link leads there)
        after, before (P,) int32 the place of the neighbour
        weights  (P,) int64 how often the pre-token around the place occurs
        counts   pair -> occurrences now
        places   pair -> k ascending places, an array or a list: where its left token stood when the pair came up; later
                 merges may have used up some of them
    """

    def __init__(self, counts: Mapping[bytes, int]) -> None:
        words = [word for word in counts if len(word) > 1]
        lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        occurrences = np.fromiter((counts[word] for word in words), dtype=np.int64, count=len(words))
        # Borders at both ends and between: word i lies at starts[i] ... starts[i] + lengths[i] - 1.
        size = int(lengths.sum()) + len(words) + 1
        inside = np.ones(size, dtype=bool)
        inside[0] = False
        inside[np.cumsum(lengths + 1)] = False
        self.tokens = np.full(size, BORDER, dtype=np.int32)
        self.tokens[inside] = np.frombuffer(b"".join(words), dtype=np.uint8)
        self.weights = np.zeros(size, dtype=np.int64)
        self.weights[inside] = np.repeat(occurrences, lengths)
        self.after = np.arange(1, size + 1, dtype=np.int32)
        self.before = np.arange(-1, size - 1, dtype=np.int32)
        # The same memory; a single number is read three times as fast through these.
        self._views = (self.tokens.data, self.after.data, self.before.data, self.weights.data)
        self.counts: dict[int, int] = {}
        self.places: dict[int, list[int] | np.ndarray] = {}
        lefts = np.flatnonzero(inside[:-1] & inside[1:]).astype(np.int32)
        keys = self.tokens[lefts] * 256 + self.tokens[lefts + 1]
        for key, total, places in grouped(keys, self.weights[lefts], lefts):
            pair = (key // 256) << LEFT_BITS | (key % 256)
            self.counts[pair], self.places[pair] = total, places

    def merge(self, pair: int, new_id: int) -> list[int]:
        """Replaces a pair wherever it stands, from the left; returns the pairs that came up."""
        left, right = pair >> LEFT_BITS, pair & ((1 << LEFT_BITS) - 1)
        del self.counts[pair]
        at = self.places.pop(pair)
        if len(at) <= FEW:
            return self._merge_few(at if isinstance(at, list) else at.tolist(), left, right, new_id)
        return self._merge_many(np.asarray(at), left, right, new_id)

    def _merge_few(self, at: list[int], left: int, right: int, new_id: int) -> list[int]:
        """The merge in a loop over the places."""
        tokens, after, before, weights = self._views
        counts = self.counts
        places: dict[int, list[int]] = {}
        for place in at:
            second = after[place]
            if tokens[place] != left or tokens[second] != right:
                continue
            previous, following = before[place], after[second]
            tokens[second] = BORDER
            tokens[place] = new_id
            after[place] = following
            before[following] = place
            weight = weights[place]
            x, y = tokens[previous], tokens[following]
            if x != BORDER:
                self._lower(x << LEFT_BITS | left, weight)
                key = x << LEFT_BITS | new_id
                counts[key] = counts.get(key, 0) + weight
                places.setdefault(key, []).append(previous)
            if y != BORDER:
                self._lower(right << LEFT_BITS | y, weight)
                key = new_id << LEFT_BITS | y
                counts[key] = counts.get(key, 0) + weight
                places.setdefault(key, []).append(place)
        # Where two merged pairs stand side by side, the first merge makes (new, left), and the second removes it.
        born = [key for key in places if key in counts]
        for key in born:
            self.places[key] = places[key]
        return born

    def _merge_many(self, at: np.ndarray, left: int, right: int, new_id: int) -> list[int]:
        """The merge in array operations over the places."""
        tokens, after, before = self.tokens, self.after, self.before
        at = at[(tokens[at] == left) & (tokens[after[at]] == right)]
        if left == right:
            at = every_other(at, after)
        seconds = after[at]
        nexts = after[seconds]
        tokens[seconds] = BORDER
        tokens[at] = new_id
        after[at] = nexts
        before[nexts] = at
        weights = self.weights[at]

        born: list[int] = []
        befores = before[at]
        for x, total, places in grouped(tokens[befores], weights, befores):
            if x == BORDER:
                continue
            # Two merged pairs side by side: between them stood (right, left).
            self._lower((right if x == new_id else x) << LEFT_BITS | left, total)
            key = x << LEFT_BITS | new_id
            self.counts[key], self.places[key] = total, places
            born.append(key)
        for y, total, places in grouped(tokens[nexts], weights, at):
            if y in (BORDER, new_id):  # the latter was counted from its other side
                continue
            self._lower(right << LEFT_BITS | y, total)
            key = new_id << LEFT_BITS | y
            self.counts[key], self.places[key] = total, places
            born.append(key)
        return born

    def _lower(self, pair: int, total: int) -> None:
        count = self.counts.get(pair)
        if count is None:  # the pair that is being merged, in a run such as "aaa"
            return
        if count == total:
            del self.counts[pair]
            self.places.pop(pair, None)
        else:
            self.counts[pair] = count - total


def grouped(keys: np.ndarray, weights: np.ndarray, places: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """For each distinct key: the key, the sum of its weights, and its places in the order they had."""
    if not len(keys):
        return []
    order = keys.argsort(kind="stable")
    keys = keys[order]
    starts = np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))
    totals = np.add.reduceat(weights[order], starts).tolist()
    places = places[order]
    bounds = [*starts.tolist(), len(keys)]
    return [
        (key, total, places[bounds[i] : bounds[i + 1]])
        for i, (key, total) in enumerate(zip(keys[starts].tolist(), totals, strict=True))
    ]


def every_other(at: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The places that merge where pairs overlap, as in "aaaa": the 1st, 3rd, ... of each run of such pairs."""
    if not len(at):
        return at
    begins = np.ones(len(at), dtype=bool)
    begins[1:] = after[at[:-1]] != at[1:]
    numbers = np.arange(len(at))
    return at[(numbers - np.maximum.accumulate(np.where(begins, numbers, 0))) % 2 == 0]


def train(
    counts: Mapping[bytes, int], n_merges: int, on_merge: Callable[[int], None] | None = None
) -> list[Pair]:
    """The same as `bpe.train`, which explains arguments, result and the rule for ties."""
    corpus = Corpus(counts)
    counts_now = corpus.counts
    # A heap as in `bpe.train`. An entry is one integer, pair - count * 2^64, which compares faster than a tuple.
    heap = [pair - (count << PAIR_BITS) for pair, count in counts_now.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        entry = heap[0]
        pair = entry & PAIR_MASK
        count = counts_now.get(pair)
        if count is None:
            heapq.heappop(heap)
            continue
        current = pair - (count << PAIR_BITS)
        if current != entry:
            heapq.heapreplace(heap, current)
            continue
        heapq.heappop(heap)
        born = corpus.merge(pair, 256 + len(merges))
        merges.append((pair >> LEFT_BITS, pair & ((1 << LEFT_BITS) - 1)))
        for other in born:
            heapq.heappush(heap, other - (counts_now[other] << PAIR_BITS))
        if on_merge:
            on_merge(len(merges))
    return merges
