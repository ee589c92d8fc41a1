"""GPT-2 with the choices that the lecture gives a reason for, each as an option: to see what it is worth.

With the defaults it is GPT-2, number by number. Letters of the shapes: see gpt2.py.

    norm              before each part (GPT-2), or after it on the stream itself (GPT-1, the first transformer)
    residual scaling  projections into the stream begin 1/sqrt(2L) as large, or as large as everything else
    activation        GELU by tanh (GPT-2), GELU itself, or ReLU
    positions         a learned vector for each (GPT-2), sines and cosines, or none: a causal network counts by itself
    tied head         the token embeddings are the head, too (GPT-2), or it has its own

Sources:
    Norms after each part, sines and cosines: Vaswani et al. 2017, arXiv:1706.03762, sections 3.1 and 3.5.
    No positions: Haviv et al. 2022, arXiv:2203.16634. Tied: Press and Wolf 2017, arXiv:1608.05859.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.cache import KVCache, LayerCache
from myna.model.config import NetworkConfig, variants_options
from myna.model.decoder import Decoder
from myna.model.gpt2 import Attention
from myna.model.matrix import Matrix

STD = 0.02  # of GPT-2's weights at the start


def sines_and_cosines(positions: Tensor, width: int) -> Tensor:
    """A vector for each position that nothing learns: pairs of a sine and a cosine, of ever longer waves.

    They are as large as GPT-2's learned vectors are at the start: a root mean square of 0.02. At full size they would
    drown the tokens, whose vectors are that small.

    Shapes:
        positions  (..., T)     int64
        returns    (..., T, C)  fp32

    >>> (sines_and_cosines(torch.tensor([0, 1]), 4) / 0.02 / math.sqrt(2)).round(decimals=3)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8410, 0.5400, 0.0100, 1.0000]])
    """
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions[..., None] / 10_000**pairs
    both = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]
    return both * (STD * math.sqrt(2))


class MLP(nn.Module):
    """Four times wider in between."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = variants_options(config).activation

    def forward(self, x: Tensor) -> Tensor:
        inner = self.c_fc(x)
        if self.activation == "relu":
            active = F.relu(inner)
        else:
            active = F.gelu(inner, approximate="tanh" if self.activation == "tanh-gelu" else "none")
        return self.dropout(self.c_proj(active))


class Block(nn.Module):
    """Attention, then the MLP. Norms stand before them, or on the stream behind them."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.norm = variants_options(config).norm
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        if self.norm == "post":
            x = self.ln_1(x + self.attn(x, cache))
            return self.ln_2(x + self.mlp(x))
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class Variants(Decoder):
    """Token ids in, logits for the next token out.

    >>> from myna.model.config import VariantsConfig
    >>> model = Variants(VariantsConfig(n_layer=1, n_head=2, n_embd=8, block_size=16, vocab_size=50))
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 50])
    """

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.options = options = variants_options(config)
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        if options.positions == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
            self.looked_up, self.position_embedding = ("wpe.weight",), "wpe.weight"
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        if options.norm == "pre":
            self.ln_f = nn.LayerNorm(config.n_embd)
        if not options.tied_head:
            self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
            self.vocabulary_rows = ("wte.weight", "lm_head.weight")
            self.looked_up = ("wte.weight", *self.looked_up)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's initial weights (see gpt2.py), drawn from torch's global generator; the scaling is an option."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif ".ln_" in f".{name}":
                    parameter.fill_(1.0)
                else:
                    scaled = self.options.residual_scaling and name.endswith("c_proj.weight")
                    scale = 1 / math.sqrt(2 * self.config.n_layer) if scaled else 1.0
                    parameter.normal_(mean=0.0, std=STD * scale)
                if name in self.vocabulary_rows:
                    parameter[self.config.vocab_size :].zero_()

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.h

    @property
    def head_weight(self) -> Tensor | Matrix:
        """The token embeddings, or the head's own matrix."""
        return self.wte.weight if self.options.tied_head else self.lm_head.weight

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, *, through: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """See `Decoder.hidden`."""
        positions = self.positions(ids, cache)
        x = self.wte(ids)  # (B, T, C)
        if self.options.positions == "learned":
            x = x + self.wpe(positions)
        elif self.options.positions == "sinusoidal":
            x = x + sines_and_cosines(positions, self.config.n_embd)
        x = self.run_blocks(self.drop(x), cache, through)
        return self.ln_f(x) if self.options.norm == "pre" else x
