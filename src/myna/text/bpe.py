"""Byte pair encoding from first principles: tests compare every fast path with this file.

Text is bytes, and each byte is a token: ids 0 to 255. Training finds the most frequent pair of neighbouring tokens,
gives it the next id, and replaces it everywhere. Then it repeats this. Encoding makes the same merges in the order in
which they were learned (their ranks). Decoding joins the bytes.

>>> merges = train({b"aaabdaaabac": 1}, n_merges=3)   # the example of Wikipedia's article on BPE
>>> merges                                            # 256 = aa, 257 = ab, 258 = aaab
[(97, 97), (97, 98), (256, 257)]
>>> encode(b"aaabdaaabac", merges)
[258, 100, 258, 97, 99]
>>> decode([258, 100, 258, 97, 99], merges)
b'aaabdaaabac'

Two choices make training deterministic everywhere:

- Ties go to the pair with the smallest ids: first the left one, then the right one. (rustbpe has the same rule.)
- A pair counts at each place where it stands, overlaps included: "aaa" holds (a, a) twice, though only one of the two
  can merge. (minbpe and Hugging Face's trainer count in the same way.)

Encoding needs only each token's rank, not the pair that made the token. tiktoken merges any two neighbours whose
joined bytes are a token, lowest id first. It doesn't ask from which pair the token was learned. For trained merges, the
result is the same as that of merging only the learned pairs. The reason is this. Take a run of bytes that encoding
finally joins into one token. Until that last merge, no merge crosses the run's borders, so the merges within the run
don't depend on its neighbours. So just before the last merge, the run always consists of the same two parts: those from
which training learned the token. `parts` uses this to recover the pairs.

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
    """Learns the first `n_merges` merges of a corpus, from its unique pre-tokens and how often each occurs.

    All pre-tokens are read once. After that, a merge visits only the pre-tokens that hold its pair, and corrects the
    counts of the pairs that changed there. The counts are Python integers, which don't overflow.

    Args:
        counts: pre-token -> occurrences. Text is cut into pre-tokens before any merge, see patterns.py.
        on_merge: called with the number of merges found so far, after each.
    Returns:
        pairs of ids, in order; number i, from 0, makes the id 256 + i. Fewer than asked for, if no pair is left.
    """
    words = [(list(word), count) for word, count in counts.items() if len(word) > 1]
    pair_counts: defaultdict[Pair, int] = defaultdict(int)
    # For each pair, the numbers of the words that may hold it.
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, (ids, count) in enumerate(words):
        for pair in pairwise(ids):
            pair_counts[pair] += count
            holders[pair].add(number)

    # A heap of (-count, pair): the most frequent pair is first; of equal counts, the smallest pair. Once a pair is in
    # the heap, its count can only fall. So an outdated entry comes to the top too early; it is put back corrected.
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


def encode(pre_token: bytes, merges: Sequence[Pair]) -> list[int]:
    """The ids of one pre-token: the lowest-ranked pair is merged wherever it stands, until no pair has a rank."""
    new_ids = {pair: 256 + i for i, pair in enumerate(merges)}
    ids = list(pre_token)
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
class EncodingState:
    """One state of a pre-token while it is encoded.

    Attributes:
        tokens: the tokens that it consists of now.
        ranks: for each pair of neighbours, the rank of the token that they would make; None if there is none.
        chosen: the number of the pair that merges next: the one with the lowest rank, and the leftmost if several have
            it. None at the end.
    """

    tokens: tuple[bytes, ...]
    ranks: tuple[int | None, ...]
    chosen: int | None


def trace(pre_token: bytes, ranks: Mapping[bytes, int]) -> Iterator[EncodingState]:
    """The encoding of one pre-token step by step: which pairs could merge, and which one does.

    >>> [step.tokens for step in trace(b"abc", {b"bc": 256, b"abc": 257})]
    [(b'a', b'b', b'c'), (b'a', b'bc'), (b'abc',)]
    """
    tokens = [pre_token[i : i + 1] for i in range(len(pre_token))]
    while True:
        joined = [ranks.get(left + right) for left, right in pairwise(tokens)]
        lowest = min((rank for rank in joined if rank is not None), default=None)
        chosen = None if lowest is None else joined.index(lowest)
        yield EncodingState(tuple(tokens), tuple(joined), chosen)
        if chosen is None:
            return
        tokens[chosen : chosen + 2] = [tokens[chosen] + tokens[chosen + 1]]


def parts(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """Encodes `token` with only the tokens whose rank is less than `below`.

    If `below` is the token's own rank, the result is the two parts that its merge joined. (It is more than two parts if
    no merge makes the token.)

    >>> parts(b"abc", {b"a": 97, b"b": 98, b"c": 99, b"bc": 256, b"abc": 257}, below=257)
    [b'a', b'bc']
    """
    tokens = [token[i : i + 1] for i in range(len(token))]
    while len(tokens) > 1:
        # A pair that makes no token gets the rank `below`, which is too large to merge.
        joined = [ranks.get(left + right, below) for left, right in pairwise(tokens)]
        lowest = min(joined)
        if lowest >= below:
            break
        i = joined.index(lowest)
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens
