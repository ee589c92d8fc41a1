"""The GPT-2 network, for every size of GPT-2 and GPT-3.

The letters of the shapes, here and everywhere:

    B  sequences in a batch        C  model width (n_embd)     V  vocabulary, as the tokenizer counts it
    T  positions in a sequence     H  attention heads          L  layers
                                   D  head width, C / H

Sources:
    GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3: pre-norm
    blocks, a last layer norm, residual projections scaled by 1/sqrt(number of residual layers) at the start.
    GPT-3: Brown et al. 2020, arXiv:2005.14165, table 2.1: the same network, 2048 positions. (Its alternating
    sparse attention is not reproduced; every layer here is dense.)
    What the paper leaves out (tanh GELU, standard deviations 0.02, tied embeddings) is from OpenAI's released code.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from myna.errors import ModelError, OutputError
from myna.files import ensure_writable_directory, json_bytes, write_atomic, write_safetensors
from myna.model.attention import causal_attention, join_heads, split_heads
from myna.model.cache import KVCache, LayerCache
from myna.model.config import GPTConfig
from myna.model.weights import generation_config, hugging_face_config, load_pretrained, to_hugging_face

if TYPE_CHECKING:
    from myna.text.tokenizer import Tokenizer


class Attention(nn.Module):
    """Causal self-attention over all heads at once."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        qkv = self.c_attn(x)  # (B, T, 3C)
        dropout = self.dropout if self.training else 0.0
        if cache is None:
            y = causal_attention(qkv, self.n_head, dropout)
        else:
            q, k, v = split_heads(qkv, self.n_head)  # (B, H, T, D)
            k, v = cache.append(k, v)  # (B, H, S, D), S = all positions so far
            mask = cache.mask(x.shape[1])
            y = join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout))
        return self.resid_dropout(self.c_proj(y))  # (B, T, C)


class MLP(nn.Module):
    """Four times wider in between, with GELU in the tanh form that GPT-2 was trained with."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    """Tokens talk (attention), then think (MLP); the residual stream passes through untouched."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


def run_block(block: Block, x: Tensor, cache: LayerCache | None = None) -> Tensor:
    """A block as a function of itself: compiled once, it serves all of them, since they differ in weights alone."""
    return block(x, cache)


class GPT(nn.Module):
    """Token ids in, logits for the next token out.

    >>> model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=16, vocab_size=50))
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 50])
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.recompute = (
            False  # in training, keep only the blocks' inputs and compute the rest again backward
        )
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's initial weights, drawn from torch's global generator.

        Normal with deviation 0.02, biases zero; the two projections a block adds to the residual stream are scaled
        by 1/sqrt(2L), so that the stream's variance doesn't grow with depth. Rows that pad the vocabulary are zero,
        and stay so: no gradient reaches them.
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
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, through: Callable[..., Tensor] = run_block
    ) -> Tensor:
        """What the head reads: the residual stream after the last norm.

        Args:
            through: how x goes through a block; `run_block`, or what a compiler made of it.
        Shapes:
            ids      (B, T)  int64; with a cache, the new tokens, whose positions go on from `cache.length`
            returns  (B, T, C)
        Raises:
            ModelError: more positions than the model has, or ids of another shape.
        """
        if ids.dim() != 2:
            raise ModelError(
                f"ids have shape {tuple(ids.shape)}; give (B, T), as in ids[None] for one sequence"
            )
        start = 0 if cache is None else cache.length
        T = ids.shape[1]
        if start + T > self.config.block_size:
            raise ModelError(
                f"{start + T} positions asked of a model that has {self.config.block_size}; shorten the text"
            )
        positions = torch.arange(start, start + T, device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        for layer, block in enumerate(self.h):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(through, block, x, use_reentrant=False)
            else:
                x = through(block, x, None if cache is None else cache.layers[layer])
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits for the token after each position.

        Shapes:
            ids      (B, T)  int64
            returns  (B, T, V)
        """
        return self.head(self.hidden(ids, cache))

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) after the last norm to logits (..., V): products with the token embeddings, padding cut off."""
        return F.linear(hidden, self.wte.weight)[..., : self.config.vocab_size]

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Weights from a directory in Hugging Face's GPT-2 layout, or from the hub by name (`gpt2`).

        Raises:
            ModelError, CheckpointError, DownloadError: what is missing or wrong, and where.
        """
        config, state = load_pretrained(source)
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(state, assign=True)
        return model

    def save_pretrained(self, directory: str | Path, tokenizer: "Tokenizer | None" = None) -> None:
        """Writes `config.json`, `model.safetensors` and, given a tokenizer, its files, as transformers expects them.

        The directory may exist; each file in it is replaced atomically.

        Raises:
            OutputError: the place can't be written. ModelError: the tokenizer's size is not the model's.
        """
        directory = Path(directory)
        if tokenizer is not None and tokenizer.n_vocab != self.config.vocab_size:
            raise ModelError(
                f"the tokenizer has {tokenizer.n_vocab} ids and the model {self.config.vocab_size}; "
                "save the model with its own tokenizer"
            )
        eot = None if tokenizer is None else tokenizer.eot
        ensure_writable_directory(directory)
        weights = directory / "model.safetensors"
        temporary = directory / ".model.safetensors.tmp"
        try:
            write_safetensors(temporary, to_hugging_face(self.state_dict(), self.config))
            temporary.replace(weights)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"cannot write {weights}: {error.strerror}; free some space") from error
        write_atomic(directory / "config.json", json_bytes(hugging_face_config(self.config, eot)))
        write_atomic(directory / "generation_config.json", json_bytes(generation_config(eot)))
        if tokenizer is not None:
            tokenizer.save(directory)
