"""One more id of each row, compiled: what a step computes once the prompts are through.

A step of a small batch is hundreds of small operations, and Python takes as long to ask for each as the processor
takes to do it. Compiled, the operations between two products become one loop, and attention reads each key and value
once. A compiler can't follow a cache that counts in Python, so here a block sees tensors alone.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from myna.model.cache import KVCache, LayerCache
from myna.model.decoder import run_block
from myna.model.network import Network
from myna.model.packed import Packed

# Torch counts how often a function was compiled anew, and ends at a limit. Where it can, it counts each network apart.
OF_ITS_OWN: dict[str, Any] = {
    name: True for name in ("isolate_recompiles",) if name in inspect.signature(torch.compile).parameters
}


class StepLayer(LayerCache):
    """A layer's share of `Step`. It has no number: a compiler would make code for each."""

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, visible: Tensor):
        self._keys, self._values, self._positions, self._visible = keys, values, positions, visible

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one new position of each row; returns all that is stored, in the storage's dtype."""
        rows, column = torch.arange(len(k), device=k.device), self._positions[:, 0]
        self._keys[rows, :, column] = k[:, :, 0].to(self._keys.dtype)
        self._values[rows, :, column] = v[:, :, 0].to(self._values.dtype)
        return self._keys, self._values

    def mask(self, T: int) -> Tensor | None:
        """What was given."""
        return self._visible


class Step(Packed):
    """The layout of one step, over the storage of a cache.

    Shapes:
        positions     (B, 1)        int64, of each row's new id
        visible       (B, 1, S)     bool
        keys, values  (B, H, S, D)  each of L layers
    """

    def __init__(self, cache: KVCache):
        n, end = len(cache.lengths), cache.longest + 1
        storages = [*cache.keys, *cache.values]
        if end > cache.written and not cache.is_even:  # no row may meet a NaN that lay in fresh memory
            for stored in storages:
                stored[:n, :, cache.written : end] = 0
        seen = [stored[:n, :, :end] for stored in storages]
        self.keys, self.values = seen[: len(cache.keys)], seen[len(cache.keys) :]
        device = seen[0].device
        positions = torch.tensor(cache.lengths, device=device)[:, None]
        super().__init__(positions, (torch.arange(end, device=device) <= positions)[:, None], end)

    def layer(self, number: int) -> LayerCache:
        """See `KVCache.layer`."""
        return StepLayer(self.keys[number], self.values[number], self._given, self._visible)


class CompiledStep:
    """A network's step for two rows and more, compiled block by block."""

    def __init__(self, network: Network):
        self._network = network
        # The numbers of rows and of positions change from step to step, so they are not compiled in. All blocks share
        # the code, since they differ in weights alone.
        self._block = torch.compile(run_block, dynamic=True, fullgraph=True, **OF_ITS_OWN)

    def warm_up(self, cache_dtype: torch.dtype | None) -> None:
        """Has the compiler make all that a step will need.

        Rows and positions are numbers that stand for no other, since the code would hold where they are equal alone. A
        compiler also tells apart whether the storage has more room or is just full.

        Args:
            cache_dtype: of the caches to come, see `Decoder.new_cache`.
        Raises:
            Whatever the compiler raises.
        """
        positions = self._network.config.block_size
        if positions < 2:
            return  # no text has a second step
        rows, fewer, known = 7, 5, min(8, positions - 1)
        for room in (min(13, positions), known + 1):
            cache = self._network.new_cache(rows, room, cache_dtype)
            self._network.hidden(torch.zeros(rows, known, dtype=torch.int64).to(self._network.device), cache)
            for _ in range(rows - fewer):
                cache.leave(0)
            self.logits([0] * fewer, cache)

    def logits(self, ids: Sequence[int], cache: KVCache) -> Tensor:
        """The logits after one more id of each row, (B, V). The cache has room for them, and gets them."""
        step = Step(cache)
        given = torch.tensor(ids)[:, None].to(self._network.device)
        hidden = self._network.hidden(given, step, through=self._block)
        cache.advance(1)
        return self._network.logits(hidden[:, -1])
