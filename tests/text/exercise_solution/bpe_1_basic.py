"""Step 1: byte-pair encoding of bytes.

Ids 0 to 255 are the bytes. The first merge makes id 256, the second 257, and so on.
"""

from collections import Counter
from itertools import pairwise

Pair = tuple[int, int]


def count_pairs(ids: list[int]) -> Counter[Pair]:
    """How often each pair of neighbours occurs. [1, 1, 1] holds (1, 1) twice."""
    return Counter(pairwise(ids))


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """The ids with every `pair` replaced by `new_id`, from left to right: merge([1, 1, 1], (1, 1), 9) is [9, 1]."""
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def most_frequent(counts: Counter[Pair]) -> Pair:
    """The pair with the highest count. Of several, the one with the smallest left id, then the smallest right id."""
    return min(counts, key=lambda pair: (-counts[pair], pair))


def train(data: bytes, n_merges: int) -> list[Pair]:
    """The pairs that were merged, in order."""
    ids = list(data)
    merges: list[Pair] = []
    for step in range(n_merges):
        pair = most_frequent(count_pairs(ids))
        ids = merge(ids, pair, 256 + step)
        merges.append(pair)
    return merges


def encode(data: bytes, merges: list[Pair]) -> list[int]:
    """The ids of some bytes: the merges are done again, in the order in which training found them."""
    ids = list(data)
    for step, pair in enumerate(merges):
        ids = merge(ids, pair, 256 + step)
    return ids


def decode(ids: list[int], merges: list[Pair]) -> bytes:
    """The bytes of some ids."""
    table = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        table.append(table[left] + table[right])
    return b"".join(table[i] for i in ids)
