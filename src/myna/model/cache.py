"""The key/value cache: what attention has already computed about the text so far.

Keys and values of a position never change once computed (attention is causal). So generation computes each position
once and attends to the stored keys and values. Each row has its own length: rows of one cache may hold texts of
different lengths.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class LayerCache:
    """One layer's share of a cache, made for one forward pass.

    The cache keeps no reference to this object. Two objects that refer to each other stay in memory until Python's
    garbage collector looks for cycles.
    """

    def __init__(self, owner: "KVCache", layer: int):
        self.owner, self.number = owner, layer

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the keys and values of T new positions after the stored ones of each row.

        Shapes:
            k, v     (B, H, T, D)
            returns  two of (B, H, S, D), in the dtype of k and v. S is the longest row's length with the new
                     positions. `mask` hides what a shorter row has after its own end.
        """
        n, T = len(k), k.shape[2]
        end = self.owner.longest + T
        keys, values = self.owner.keys[self.number], self.owner.values[self.number]
        if self.owner.is_even:
            keys[:n, :, end - T : end] = k
            values[:n, :, end - T : end] = v
        else:
            for stored, new in ((keys, k), (values, v)):
                # Fresh memory may hold a NaN. Attention gives it weight 0, but 0 * NaN is NaN. So clear it first.
                stored[:n, :, self.owner.written : end] = 0
                rows = torch.arange(n, device=k.device)[:, None]
                stored[rows, :, self.owner.positions(T)] = new.transpose(1, 2).to(stored.dtype)
        return keys[:n, :, :end].to(k.dtype), values[:n, :, :end].to(v.dtype)

    def mask(self, T: int) -> Tensor | None:
        """See `KVCache.mask`."""
        return self.owner.mask(T)


class KVCache:
    """Keys and values of all layers. Each row has its own length, and rows can join and leave.

    Args:
        shape: (layers, rows, key/value heads, positions, head width).

    Attributes:
        keys, values: one tensor a layer, (B, H, S, D), filled from the left; S is the capacity.
        lengths: how many positions each row holds; also the number of its next position.
        longest: the largest of `lengths`.
        is_even: whether all rows are equally long.
        written: how many columns are initialised in every row, with the row's own values or with padding.

    >>> cache = KVCache((1, 2, 1, 8, 4), torch.device("cpu"))
    >>> kv = torch.zeros(2, 1, 3, 4)
    >>> _ = cache.layer(0).append(kv, kv)
    >>> cache.advance(3); cache.cut([3, 1]); cache.lengths
    [3, 1]
    >>> cache.positions(1).tolist(), cache.mask(1).tolist()
    ([[3], [1]], [[[[True, True, True, True]]], [[[True, True, False, False]]]])
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ):
        n_layers, rows, *rest = shape
        self.written = 0
        self._set([0] * rows)

        def storage() -> Tensor:
            return torch.empty((rows, *rest), device=device, dtype=dtype)

        self.keys = [storage() for _ in range(n_layers)]
        self.values = [storage() for _ in range(n_layers)]

    def layer(self, number: int) -> LayerCache:
        """The share of one layer: its attention writes to it and reads from it."""
        return LayerCache(self, number)

    def _set(self, lengths: list[int]) -> None:
        self.lengths, self.longest = lengths, max(lengths, default=0)
        self.is_even = min(lengths, default=0) == self.longest
        # Masks and positions by the number of new positions. All layers use the same ones.
        self._masks: dict[int, Tensor | None] = {}
        self._positions: dict[int, Tensor] = {}

    @property
    def capacity(self) -> int:
        """Positions that a row has room for."""
        return self.keys[0].shape[2]

    @property
    def n_bytes(self) -> int:
        """The bytes that the storage takes."""
        return sum(stored.nbytes for stored in self._storages())

    def bytes_of(self, positions: int) -> int:
        """The bytes that this many positions of one row take."""
        return sum(stored[0, :, 0].nbytes for stored in self._storages()) * positions

    def end(self, T: int) -> int:
        """How many positions a model must have for T new ids."""
        return self.longest + T

    def positions(self, T: int) -> Tensor:
        """The positions of T new ids: int64 (T,) where all rows are equally long, else (B, T)."""
        if T not in self._positions:
            self._positions[T] = self._make_positions(T)
        return self._positions[T]

    def _make_positions(self, T: int) -> Tensor:
        device = self.keys[0].device
        if self.is_even:
            return torch.arange(self.longest, self.longest + T, device=device)
        return torch.tensor(self.lengths, device=device)[:, None] + torch.arange(T, device=device)

    def mask(self, T: int) -> Tensor | None:
        """Which of the S positions each of the T new positions may see. S includes the new ones.

        Returns:
            bool, (T, S) where all rows are equally long, else (B, 1, T, S); None where each may see all.
        """
        if T not in self._masks:
            self._masks[T] = self._make_mask(T)
        return self._masks[T]

    def _make_mask(self, T: int) -> Tensor | None:
        if self.is_even and T == 1:
            return None
        seen = torch.arange(self.longest + T, device=self.keys[0].device)
        mask = seen <= self.positions(T)[..., None]
        return mask if self.is_even else mask[:, None]

    def advance(self, T: int) -> None:
        """Counts T more positions in every row, after all layers have stored them."""
        self._set([length + T for length in self.lengths])
        self.written = max(self.written, self.longest)

    def cut(self, lengths: Sequence[int] | int) -> None:
        """Shortens each row to a length. The storage stays and is used again."""
        wanted = [lengths] * len(self.lengths) if isinstance(lengths, int) else list(lengths)
        assert len(wanted) == len(self.lengths)
        assert all(0 <= new <= old for new, old in zip(wanted, self.lengths, strict=True))
        self._set(wanted)

    def repeat(self, times: int, positions: int | None = None) -> "KVCache":
        """A new cache with `times` copies of each row, side by side.

        Args:
            positions: the new cache's capacity; None for this cache's.
        """
        rows = [row for row in range(len(self.lengths)) for _ in range(times)]
        return self.select(rows, positions)

    def select(self, rows: Sequence[int], positions: int | None = None, most: int | None = None) -> "KVCache":
        """A new cache with these rows, in this order; a row may come more than once.

        Args:
            positions: the new cache's capacity; None for this cache's.
            most: take no more than this many positions of a row; None takes all.
        """
        first = self.keys[0]
        _, heads, capacity, width = first.shape
        shape = (len(self.keys), len(rows), heads, capacity if positions is None else positions, width)
        chosen = KVCache(shape, first.device, first.dtype)
        chosen.put(range(len(rows)), self, rows, most)
        return chosen

    def put(
        self,
        rows: Sequence[int],
        source: "KVCache",
        source_rows: Sequence[int] | None = None,
        most: int | None = None,
    ) -> None:
        """Replaces rows by rows of another cache.

        Args:
            source_rows: which rows of `source`; None for all, in order.
            most: take no more than this many positions of a row; None takes all.
        """
        source_rows = range(len(source.lengths)) if source_rows is None else source_rows
        taken = [
            source.lengths[row] if most is None else min(most, source.lengths[row]) for row in source_rows
        ]
        end = max(taken, default=0)
        device = self.keys[0].device
        there, here = torch.tensor(source_rows, device=device), torch.tensor(rows, device=device)
        n = len(self.lengths)
        for stored, new in zip(self._storages(), source._storages(), strict=True):
            if list(rows) == list(range(n)):
                stored[:n, :, :end] = new[:, :, :end].index_select(0, there)
            else:
                stored[:n, :, self.written : end] = 0
                stored[here, :, :end] = new[:, :, :end].index_select(0, there).to(stored.dtype)
        lengths = list(self.lengths)
        for row, length in zip(rows, taken, strict=True):
            lengths[row] = length
        self._set(lengths)
        self.written = max(self.written, end)

    def join(self, source: "KVCache", source_rows: Sequence[int] | None = None) -> None:
        """Adds rows of another cache after its own. The storage grows if it has no room for them.

        Args:
            source_rows: which rows of `source`; a row may come more than once; None for all, in order.
        """
        source_rows = range(len(source.lengths)) if source_rows is None else source_rows
        first = len(self.lengths)
        self.reserve(first + len(source_rows), max(source.longest, 1))
        # The memory of the new rows is fresh, or belonged to a row that left.
        for stored in self._storages():
            stored[first : first + len(source_rows), :, : self.written] = 0
        self._set([*self.lengths, *[0] * len(source_rows)])
        self.put(range(first, len(self.lengths)), source, source_rows)

    def leave(self, row: int) -> None:
        """Removes a row. The last row takes its place and its number."""
        last = len(self.lengths) - 1
        length = self.lengths[last]
        if row != last:
            for stored in self._storages():
                stored[row, :, :length] = stored[last, :, :length]
                # The row that left may have held a NaN, which attention would multiply by 0: still a NaN.
                stored[row, :, length : self.written] = 0
        lengths = list(self.lengths)
        lengths[row] = length
        self._set(lengths[:last])
        if not last:
            self.written = 0

    def reserve(self, rows: int, positions: int) -> None:
        """Makes room for at least this many rows and positions.

        A size that grows at least doubles, so that growing stays rare.
        """
        have_rows, heads, capacity, width = self.keys[0].shape
        if rows <= have_rows and positions <= capacity:
            return
        n = len(self.lengths)
        shape = (
            have_rows if rows <= have_rows else max(rows, 2 * have_rows),
            heads,
            capacity if positions <= capacity else max(positions, 2 * capacity),
            width,
        )
        for stored in (self.keys, self.values):
            for number, old in enumerate(stored):
                stored[number] = old.new_empty(shape)
                stored[number][:n, :, : self.written] = old[:n, :, : self.written]

    def _storages(self) -> Iterator[Tensor]:
        yield from self.keys
        yield from self.values
