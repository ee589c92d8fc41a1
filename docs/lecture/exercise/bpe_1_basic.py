"""Step 1: byte-pair encoding of bytes.

Ids 0 to 255 are the bytes. The first merge makes id 256, the second 257, and so on.
"""

from collections import Counter
from itertools import pairwise

Pair = tuple[int, int]


def count_pairs(ids: list[int]) -> Counter[Pair]:
    """How often each pair of neighbours occurs. [1, 1, 1] holds (1, 1) twice."""
    return ...


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """The ids with every `pair` replaced by `new_id`, from left to right: merge([1, 1, 1], (1, 1), 9) is [9, 1]."""
    merged: list[int] = []
    i = 0
    while i < len(ids):
        ...  # append one id, and step over what it stands for
        break  # remove this line
    return merged


def most_frequent(counts: Counter[Pair]) -> Pair:
    """The pair with the highest count. Of several, the one with the smallest left id, then the smallest right id."""
    return ...


def train(data: bytes, n_merges: int) -> list[Pair]:
    """The pairs that were merged, in order."""
    ids = list(data)
    merges: list[Pair] = []
    for step in range(n_merges):
        pair = ...
        ids = ...
        merges.append(pair)
    return merges


def encode(data: bytes, merges: list[Pair]) -> list[int]:
    """The ids of some bytes: the merges are done again, in the order in which training found them."""
    ids = list(data)
    ...
    return ids


def decode(ids: list[int], merges: list[Pair]) -> bytes:
    """The bytes of some ids."""
    table = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        ...
    return b"".join(table[i] for i in ids)
