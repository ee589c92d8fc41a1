"""Several texts in one row, each of which sees only itself: where a cache would stand, but nothing is stored.

A network asks its cache for three things: the positions of the new ids, what each of them may see, and the keys and
values before them. `Packed` answers from a layout that is given, so every network that can go on from a cache can also
compute texts side by side, and what they have in common once.
"""

import torch
from torch import Tensor

from myna.model.cache import KVCache, LayerCache


class PackedLayer(LayerCache):
    """A layer's share: nothing. Keys and values go through."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values that came."""
        return k, v


class Packed(KVCache):
    """The layout of one forward pass.

    Shapes:
        positions  (B, T)     int64, of each id in its own text
        visible    (B, T, S)  bool: whether id i of a row may see its id j; each sees itself. S is T, and more where
                              earlier ids are stored (`decoding.Step`)
    """

    def __init__(self, positions: Tensor, visible: Tensor, end: int | None = None):
        """Args: end: no position is so large; None to look (which waits for the device)."""
        assert positions.shape == visible.shape[:2]
        self._given, self._visible = positions, visible[:, None]
        self._end = int(positions.max()) + 1 if end is None else end
        self.lengths, self.longest, self.is_even = [0] * len(positions), 0, True

    @classmethod
    def side_by_side(cls, positions: Tensor) -> "Packed":
        """Texts one after the other in each row: one begins wherever a position is 0.

        Shapes:
            positions  (B, T)  int64; 0 first in each row, then counting up to the next text
        """
        T = positions.shape[1]
        text = (positions == 0).cumsum(dim=1)  # the number of the text that an id belongs to
        earlier = torch.ones(T, T, dtype=torch.bool, device=positions.device).tril()
        return cls(positions, (text[:, :, None] == text[:, None, :]) & earlier, end=T)

    def layer(self, number: int) -> LayerCache:
        """See `KVCache.layer`."""
        return PackedLayer(self, number)

    def end(self, T: int) -> int:
        """See `KVCache.end`."""
        return self._end

    def positions(self, T: int) -> Tensor:
        """The positions that were given, (B, T)."""
        return self._given

    def mask(self, T: int) -> Tensor | None:
        """What was given, as (B, 1, T, S)."""
        return self._visible

    def advance(self, T: int) -> None:
        """Nothing was stored, so nothing grows."""
