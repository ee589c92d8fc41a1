"""The GPT-2 network, for every size of GPT-2 and GPT-3.

The letters of the shapes, here and everywhere:

    B  sequences in a batch        C  model width (n_embd)     V  vocabulary size, without padding (Vp: with it)
    T  positions in a sequence     H  attention heads          L  layers
                                   D  head width, C / H

Sources:
    GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3: pre-norm
    blocks, a last layer norm, residual projections whose initial weights are scaled by 1/sqrt(residual layers).
    GPT-3: Brown et al. 2020, arXiv:2005.14165, table 2.1: the same network, 2048 positions. (Its alternating
    sparse attention is not reproduced; every layer here is dense.)
    OpenAI's released code, for what the paper leaves out: tanh GELU, standard deviation 0.02, tied embeddings. (That
    code draws the position embeddings with 0.01. Here they have 0.02 too, as in build-nanogpt.)
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.attention import attention, split_heads
from myna.model.cache import KVCache, LayerCache
from myna.model.config import NetworkConfig, gelu_of
from myna.model.decoder import Decoder
from myna.model.gpt2_layout import HuggingFaceGPT2
from myna.model.matrix import Matrix


class Attention(nn.Module):
    """Causal self-attention over all heads at once."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        # x (B, T, C)
        q, k, v = split_heads(self.c_attn(x), self.n_head)  # each (B, H, T, D)
        y = attention(q, k, v, dropout=self.dropout if self.training else 0.0, cache=cache)  # (B, T, C)
        return self.resid_dropout(self.c_proj(y))  # (B, T, C)


class MLP(nn.Module):
    """Two linear layers, C to 4C to C, with GELU between them: in GPT-2's tanh form, or in the exact form."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.approximate = {"tanh": "tanh", "exact": "none"}[gelu_of(config)]

    def forward(self, x: Tensor) -> Tensor:
        # x (B, T, C)
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate)))  # (B, T, C)


class Block(nn.Module):
    """Attention mixes positions, then the MLP works on each position alone. Each adds to the residual stream."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        # x (B, T, C)
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class GPT(Decoder):
    """Token ids in, logits for the next token out.

    >>> from myna.model.config import GPTConfig
    >>> model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=16, vocab_size=50))
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 50])
    """

    # `wte` is not in this list: it is also the head's weight, so it is multiplied too.
    looked_up = ("wpe.weight",)
    position_embedding = "wpe.weight"
    layout = HuggingFaceGPT2()

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's initial weights, drawn from torch's global generator.

        Weights are normal with standard deviation 0.02. Biases are zero, and layer norms begin with weight one. The
        two `c_proj` of a block write to the residual stream. Their deviation is divided by sqrt(2L), so that the
        stream's variance doesn't grow with depth. Rows that pad the vocabulary are zero. They stay zero, because no
        gradient reaches them.
        """
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif ".ln_" in f".{name}":
                    parameter.fill_(1.0)
                else:
                    scale = 1 / math.sqrt(2 * self.config.n_layer) if name.endswith("c_proj.weight") else 1.0
                    parameter.normal_(mean=0.0, std=0.02 * scale)
            self.wte.weight[self.config.vocab_size :].zero_()

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.h

    @property
    def head_weight(self) -> Tensor | Matrix:
        """The token embeddings, which also serve as the head."""
        return self.wte.weight

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, *, through: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """See `Decoder.hidden`."""
        positions = self.positions(ids, cache)
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        return self.ln_f(self.run_blocks(x, cache, through))
