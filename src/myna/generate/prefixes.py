"""Keys and values of earlier texts, for new ones that begin alike: what was computed once is not computed again."""

from collections.abc import Sequence

import numpy as np

from myna.model.cache import KVCache


class Prefixes:
    """Kept texts with their keys and values, at most so many bytes; the one not used for longest goes first.

    A text that is the beginning of another kept one is not kept twice: a conversation that grows has one place.

    Args:
        most_bytes: of keys and values together; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int):
        self.most_bytes = most_bytes
        self._kept: list[tuple[np.ndarray, KVCache]] = []  # the one used last is last
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def longest(self, ids: Sequence[int]) -> tuple[KVCache, int] | None:
        """The kept text that shares the longest beginning with `ids`, and how many ids that are; None for no id."""
        wanted = np.asarray(ids, dtype=np.int64)
        best, best_n = -1, 0
        for place, (kept, _) in enumerate(self._kept):
            n = _shared(wanted, kept)
            if n >= best_n and n:
                best, best_n = place, n
        if best < 0:
            return None
        self._kept.append(self._kept.pop(best))
        return self._kept[-1][1], best_n

    def keep(self, ids: Sequence[int], cache: KVCache, row: int) -> None:
        """Keeps a text: a row of a cache that holds `len(ids)` positions or more."""
        text = np.asarray(ids, dtype=np.int64)
        n_bytes = cache.bytes_of(len(text))
        if not len(text) or n_bytes > self.most_bytes:
            return
        for place, (kept, _) in enumerate(self._kept):
            if _shared(text, kept) == len(text):  # it begins a text that is kept already
                self._kept.append(self._kept.pop(place))
                return
        for kept, old in [(kept, old) for kept, old in self._kept if _shared(text, kept) == len(kept)]:
            self._drop(kept, old)
        while self._kept and self.n_bytes + n_bytes > self.most_bytes:
            self._drop(*self._kept[0])
        copy = cache.select([row], positions=len(text), most=len(text))
        self._kept.append((text, copy))
        self.n_bytes += copy.n_bytes

    def clear(self) -> None:
        """Forgets all."""
        self._kept, self.n_bytes = [], 0

    def _drop(self, text: np.ndarray, cache: KVCache) -> None:
        self._kept = [(kept, old) for kept, old in self._kept if kept is not text]
        self.n_bytes -= cache.n_bytes


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    """How many ids two texts have in common from the beginning."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n
