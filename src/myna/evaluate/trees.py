"""Texts that begin alike, as a tree: what they have in common stands once, and is computed once.

A tree is a row of ids in which each text is a path. An id sees the ids before it on its own path and no other, and its
position is its depth; so each text gets the numbers that it would get alone.

    the cat | sat down       ids        the cat sat down ran
            | ran            positions    0   1   2    3   2
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# What a pair of ids in attention costs, in multiply-adds, against one of a matrix product: its kernels are slower.
ATTENTION_FACTOR = 3


@dataclass(frozen=True)
class Tree:
    """Some of a list of texts.

    Attributes:
        texts: their numbers in the list, in the order of the paths.
        ids, positions: int64 (T,).
        paths: for each text, where in `ids` each of its own is.
        branches: (start, end, path): the ids start to end follow one another, after those of the path.
    """

    texts: tuple[int, ...]
    ids: np.ndarray
    positions: np.ndarray
    paths: tuple[np.ndarray, ...]
    branches: tuple[tuple[int, int, np.ndarray], ...]

    def visible(self) -> np.ndarray:
        """bool (T, T): whether an id sees another: itself, and those before it on its path.

        >>> (tree,) = grow([(7, 1, 2), (7, 3)], width=1000, most=100)
        >>> tree.ids.tolist(), tree.positions.tolist(), tree.visible().astype(int).tolist()
        ([7, 1, 2, 3], [0, 1, 2, 1], [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]])
        """
        seen = np.zeros((len(self.ids), len(self.ids)), dtype=bool)
        for start, end, path in self.branches:
            seen[start:end, path] = True
            seen[start:end, start:end] = np.tri(end - start, dtype=bool)
        return seen


def grow(texts: Sequence[tuple[int, ...]], *, width: int, most: int) -> list[Tree]:
    """As few trees as pay. A text joins the tree of its neighbour in the order of the ids, or begins one.

    Args:
        texts: of one id or more each.
        width: of the network that will compute them (C).
        most: ids in a tree of several texts.
    """
    trees: list[Tree] = []
    held: list[int] = []
    ids: list[int] = []
    positions: list[int] = []
    paths: list[np.ndarray] = []
    branches: list[tuple[int, int, np.ndarray]] = []

    def close() -> None:
        if held:
            trees.append(Tree(tuple(held), np.array(ids), np.array(positions), tuple(paths), tuple(branches)))
        for part in (held, ids, positions, paths, branches):
            part.clear()

    for number in sorted(range(len(texts)), key=lambda number: texts[number]):
        text = texts[number]
        shared = common(texts[held[-1]], text) if held else 0
        size = len(ids) + len(text) - shared
        if shared < len(text) and not (size <= most and pays(shared, len(text), len(ids), width)):
            close()
            shared, size = 0, len(text)
        path = paths[-1][:shared] if shared else np.empty(0, dtype=np.int64)
        branches.append((len(ids), size, path))
        paths.append(np.concatenate([path, np.arange(len(ids), size)]))
        positions.extend(range(shared, len(text)))
        ids.extend(text[shared:])
        held.append(number)
    close()
    return trees


def pays(shared: int, own: int, others: int, width: int) -> bool:
    """Whether a text of `own` ids is cheaper in a tree of `others`, with `shared` ids in common, than alone.

    In a block of GPT-2's shape an id costs 12 C^2 multiply-adds, and a pair of ids 2 C. In a tree each pair is
    computed, also of ids that don't see each other.

    >>> pays(shared=70, own=95, others=95, width=768), pays(shared=1, own=95, others=95, width=768)
    (True, False)
    """

    def cost(ids: int) -> int:
        return 6 * width * ids + ATTENTION_FACTOR * ids * ids

    return cost(others + own - shared) < cost(others) + cost(own)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two texts begin with in common.

    >>> common((1, 2, 3), (1, 2, 4, 5)), common((1,), (2,)), common((1, 2), (1, 2, 3))
    (2, 0, 2)
    """
    low, high = 0, min(len(a), len(b))
    while low < high:  # the first `low` are equal, and it is not known of more
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
