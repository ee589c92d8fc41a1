"""What is in a split: how long its documents are, which ids are common, what some windows look like as text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from myna.data.split import Split

SAMPLE_IDS = 20_000_000
STRETCHES = 20
BORDER = "⏎⏎ document ⏎⏎"


@dataclass(frozen=True)
class Sample:
    """Statistics of a split.

    Attributes:
        n_ids: how many ids were looked at: all, or `STRETCHES` evenly spaced stretches of a large split.
        lengths: (K,) int64, ids of each document that lies whole in what was looked at, end-of-text id included.
        common: the most frequent ids: (id, times), most frequent first.
    """

    n_ids: int
    lengths: np.ndarray
    common: list[tuple[int, int]]


def sample_split(split: Split, eot: int, top: int = 15, limit: int = SAMPLE_IDS) -> Sample:
    """Looks at a split, or evenly spaced parts of it.

    Args:
        eot: the id that begins a document.
        limit: ids to look at, at most.
    """
    n = split.n_tokens
    size = limit // STRETCHES
    whole = n <= limit
    starts = [0] if whole else [(n - size) * i // (STRETCHES - 1) for i in range(STRETCHES)]
    counts = np.zeros(split.vocab_size, dtype=np.int64)
    lengths = []
    seen = 0
    for start in starts:
        ids = split.read(start, n if whole else size)
        seen += len(ids)
        counts += np.bincount(ids, minlength=split.vocab_size)
        borders = np.flatnonzero(ids == eot)
        lengths.append(np.diff(np.append(borders, n) if whole else borders))
    order = np.argsort(-counts, kind="stable")[:top]
    common = [(int(i), int(counts[i])) for i in order if counts[i]]
    return Sample(seen, np.concatenate(lengths), common)


def histogram(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """Documents by length in powers of two: (from, up to and without, how many).

    >>> histogram(np.array([1, 5, 6, 7, 9]))
    [(1, 2, 1), (2, 4, 0), (4, 8, 3), (8, 16, 1)]
    """
    if not len(lengths):
        return []
    exponents = np.floor(np.log2(lengths)).astype(int)
    first, last = int(exponents.min()), int(exponents.max())
    return [(2**e, 2 ** (e + 1), int((exponents == e).sum())) for e in range(first, last + 1)]


def window_text(split: Split, start: int, count: int, eot: int, decode: Callable[[list[int]], str]) -> str:
    """A window as text, each document's beginning marked.

    Args:
        decode: ids to text.
    """
    ids = split.read(start, min(count, split.n_tokens - start))
    parts = np.split(ids, np.flatnonzero(ids == eot))
    texts = [decode(part[1:].tolist() if len(part) and part[0] == eot else part.tolist()) for part in parts]
    return f"\n{BORDER}\n".join(texts).lstrip("\n")
