"""A second network, as somebody would add it: rotary positions, no biases, RMS norms, an untied head, a gated MLP.

Nothing in `src` knows it: this file and its line in the table are all there is.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from myna.model.attention import attention
from myna.model.decoder import Decoder
from myna.model.network import NETWORKS, NetworkKind
from myna.settings import ABOVE_0, Options, setting


@dataclass(frozen=True, kw_only=True)
class RotaryOptions(Options):
    rotary_base: float = setting(10_000.0, ABOVE_0, resume="never")
    """Wavelengths of the positions go up to about this many tokens."""


def rotated(x, cos, sin):
    """(B, H, T, D) with pairs of numbers turned by the angle of their position; cos, sin (..., T, D / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.n_head, self.dropout = config.n_head, config.dropout
        self.norm_1, self.norm_2 = nn.RMSNorm(C, eps=1e-6), nn.RMSNorm(C, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(C, 2 * C, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * C, C, bias=False)

    def forward(self, x, cache, cos, sin):
        h = self.norm_1(x)
        q, k, v = (f(h).unflatten(2, (self.n_head, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        dropout = self.dropout if self.training else 0.0
        y = attention(rotated(q, cos, sin), rotated(k, cos, sin), v, dropout=dropout, cache=cache)
        x = x + self.out(y)
        h = self.norm_2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Rotary(Decoder):
    looked_up = ("tokens.weight",)
    vocabulary_rows = ("tokens.weight", "head.weight")

    def __init__(self, config):
        super().__init__(config)
        self.tokens = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.norm = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    parameter.normal_(std=0.05)
                if name in self.vocabulary_rows:
                    parameter[config.vocab_size :].zero_()

    @property
    def blocks(self):
        return self.layers

    @property
    def head_weight(self):
        return self.head.weight

    def hidden(self, ids, cache=None, *, through=None):
        positions = self.positions(ids, cache)
        width = self.config.head_width
        steps = torch.arange(0, width, 2, device=ids.device) / width
        angles = positions[..., None] / self.config.options.rotary_base**steps  # (T, D / 2) or (B, T, D / 2)
        if angles.dim() == 3:
            angles = angles[:, None]  # over the heads
        x = self.run_blocks(self.tokens(ids), cache, through, angles.cos(), angles.sin())
        return self.norm(x)


NETWORKS["rotary"] = NetworkKind(Rotary, options=RotaryOptions)
