"""Byte pair encoding from first principles: the reference that every fast path is held to.

Text is bytes, and a byte is a token: ids 0 to 255. Training finds the pair of neighbours that occurs most often,
gives it the next id, replaces it everywhere, and does so again. Encoding plays the same merges back in the order
in which they were learned (their ranks); decoding joins the bytes.

>>> merges = train({b"aaabdaaabac": 1}, n_merges=3)   # the example of Wikipedia's article on BPE
>>> merges                                            # 256 = aa, 257 = ab, 258 = aaab
[(97, 97), (97, 98), (256, 257)]
>>> encode(b"aaabdaaabac", merges)
[258, 100, 258, 97, 99]
>>> decode([258, 100, 258, 97, 99], merges)
b'aaabdaaabac'

Two choices make training deterministic everywhere:

- Ties go to the pair with the smallest ids: first the left one, then the right one. (rustbpe has the same rule.)
- A pair is counted at each place where it stands, overlaps included: "aaa" holds (a, a) twice, though only one of the
  two can merge. (So do minbpe and Hugging Face's trainer.)

Why a rank per token is enough. tiktoken merges any two neighbours whose joined bytes are a token, lowest id first,
whatever pair the token was learned from. For trained merges that is the same: as long as no merge has crossed the
borders of a stretch of bytes, what happens inside it doesn't depend on what is around it, so the two parts that stand
when the stretch becomes a token are always the two it was learned from. `parts` uses this to recover the pairs.

Source: Sennrich, Haddow, Birch, arXiv:1508.07909; bytes as the base, Radford et al. 2019 (GPT-2), section 2.2.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Pair = tuple[int, int]


def train(
    counts: Mapping[bytes, int], n_merges: int, on_merge: Callable[[int], None] | None = None
) -> list[Pair]:
    """The first `n_merges` merges of a corpus that is given as its unique pre-tokens and how often each occurs.

    The corpus is never walked again: a merge touches only the pre-tokens that hold its pair, and the counts of the
    pairs next to it are moved by what changed. Python's integers don't overflow.

    Args:
        counts: pre-token -> occurrences.
        on_merge: called with the number of merges found so far, after each.
    Returns:
        pairs of ids, in order; the i-th makes the id 256 + i. Fewer than asked when no pair is left.
    """
    words = [(list(word), count) for word, count in counts.items() if len(word) > 1]
    pair_counts: defaultdict[Pair, int] = defaultdict(int)
    holders: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> numbers of the words that may hold it
    for number, (ids, count) in enumerate(words):
        for pair in pairwise(ids):
            pair_counts[pair] += count
            holders[pair].add(number)

    # A heap of (-count, pair): the most frequent first, ties by the smallest pair. A count only ever falls once its
    # pair is in the heap, so an entry that is out of date is found at the top, corrected and put back.
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        negative, pair = heapq.heappop(heap)
        count = pair_counts[pair]
        if count != -negative:
            if count > 0:
                heapq.heappush(heap, (-count, pair))
            continue
        new_id = 256 + len(merges)
        merges.append(pair)
        born: set[Pair] = set()
        for number in holders.pop(pair):
            ids, occurrences = words[number]
            for changed, difference in merge_in_place(ids, pair, new_id):
                pair_counts[changed] += difference * occurrences
                if difference > 0:
                    holders[changed].add(number)
                    born.add(changed)
        del pair_counts[pair]
        for changed in born:
            if pair_counts[changed] > 0:
                heapq.heappush(heap, (-pair_counts[changed], changed))
        if on_merge:
            on_merge(len(merges))
    return merges


def merge_in_place(ids: list[int], pair: Pair, new_id: int) -> list[tuple[Pair, int]]:
    """Replaces each `pair` in `ids` by `new_id`, from the left, and returns how the counts of pairs change.

    >>> ids = [1, 2, 3, 1, 2]
    >>> merge_in_place(ids, (1, 2), 4)
    [((1, 2), -1), ((2, 3), -1), ((4, 3), 1), ((3, 1), -1), ((3, 4), 1), ((1, 2), -1)]
    >>> ids
    [4, 3, 4]
    """
    left, right = pair
    changes: list[tuple[Pair, int]] = []
    i = 0
    while i < len(ids) - 1:
        if ids[i] == left and ids[i + 1] == right:
            if i > 0:
                changes += [((ids[i - 1], left), -1), ((ids[i - 1], new_id), 1)]
            changes.append((pair, -1))
            if i + 2 < len(ids):
                changes += [((right, ids[i + 2]), -1), ((new_id, ids[i + 2]), 1)]
            ids[i : i + 2] = [new_id]
        i += 1
    return changes


def encode(piece: bytes, merges: Sequence[Pair]) -> list[int]:
    """The ids of one pre-token: the lowest-ranked pair is merged wherever it stands, until no pair has a rank."""
    new_ids = {pair: 256 + i for i, pair in enumerate(merges)}
    ids = list(piece)
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: new_ids.get(pair, float("inf")))
        if pair not in new_ids:
            break
        merge_in_place(ids, pair, new_ids[pair])
    return ids


def decode(ids: Sequence[int], merges: Sequence[Pair]) -> bytes:
    """The bytes that ids stand for."""
    table = token_bytes(merges)
    return b"".join(table[i] for i in ids)


def token_bytes(merges: Sequence[Pair]) -> list[bytes]:
    """The bytes of each id: the 256 single bytes, then what each merge joins.

    >>> token_bytes([(104, 105)])[256]
    b'hi'
    """
    table = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        table.append(table[left] + table[right])
    return table


@dataclass(frozen=True)
class Step:
    """A moment in the encoding of a piece.

    Attributes:
        pieces: what it is made of now.
        ranks: for each two neighbours, the rank of the token that they would make; None if there is none.
        chosen: which two are merged next (the first of the lowest rank), None at the end.
    """

    pieces: tuple[bytes, ...]
    ranks: tuple[int | None, ...]
    chosen: int | None


def trace(piece: bytes, ranks: Mapping[bytes, int]) -> Iterator[Step]:
    """The encoding of one pre-token step by step: what could merge, and what does.

    >>> [step.pieces for step in trace(b"abc", {b"bc": 256, b"abc": 257})]
    [(b'a', b'b', b'c'), (b'a', b'bc'), (b'abc',)]
    """
    pieces = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        joined = [ranks.get(left + right) for left, right in pairwise(pieces)]
        lowest = min((rank for rank in joined if rank is not None), default=None)
        chosen = None if lowest is None else joined.index(lowest)
        yield Step(tuple(pieces), tuple(joined), chosen)
        if chosen is None:
            return
        pieces[chosen : chosen + 2] = [pieces[chosen] + pieces[chosen + 1]]


def parts(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """A piece encoded with only the tokens of a rank lower than `below`: for a token's own rank, the pair it merges.

    >>> parts(b"abc", {b"a": 97, b"b": 98, b"c": 99, b"bc": 256, b"abc": 257}, below=257)
    [b'a', b'bc']
    """
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 1:
        joined = [ranks.get(a + b, below) for a, b in pairwise(pieces)]
        rank = min(joined)
        if rank >= below:
            break
        i = joined.index(rank)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces
