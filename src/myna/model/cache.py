"""The key/value cache: what attention has already computed about the text so far.

Keys and values of a position never change once computed (attention is causal), so generation computes each
position once and attends to the stored ones.
"""

import torch
from torch import Tensor

from myna.model.config import GPTConfig


class LayerCache:
    """One layer's share: storage (B, H, block_size, D) for keys and values, filled from the left."""

    def __init__(self, owner: "KVCache", shape: tuple[int, ...], device: torch.device, dtype: torch.dtype):
        self.owner = owner
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (B, H, T, D); returns all so far, (B, H, S, D), in the dtype of the new."""
        start, stop = self.owner.length, self.owner.length + k.shape[2]
        self.keys[:, :, start:stop] = k
        self.values[:, :, start:stop] = v
        return self.keys[:, :, :stop].to(k.dtype), self.values[:, :, :stop].to(v.dtype)

    def mask(self, T: int) -> Tensor | None:
        """Which of the S = length + T positions each of the T new ones may see: (T, S) bool, or None for all."""
        if T == 1:
            return None
        S = self.owner.length + T
        return torch.ones(T, S, dtype=torch.bool, device=self.keys.device).tril(diagonal=self.owner.length)


class KVCache:
    """Room for one window of `block_size` positions of each of `batch_size` sequences.

    Attributes:
        length: positions filled so far; the model advances it after each forward pass.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ):
        shape = (batch_size, config.n_head, config.block_size, config.n_embd // config.n_head)
        self.length = 0
        self.layers = [LayerCache(self, shape, torch.device(device), dtype) for _ in range(config.n_layer)]

    def reset(self) -> None:
        """Forgets the text; the storage is used again."""
        self.length = 0
