"""The lecture's network and nanoGPT's, written out, and what saves them as those projects do."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

SHAPE = {"block_size": 12, "vocab_size": 320, "n_layer": 2, "n_head": 2, "n_embd": 16}


class Norm(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class SelfAttention(nn.Module):
    def __init__(self, c, bias, mask):
        super().__init__()
        self.c_attn = nn.Linear(c.n_embd, 3 * c.n_embd, bias=bias)
        self.c_proj = nn.Linear(c.n_embd, c.n_embd, bias=bias)
        self.n_head = c.n_head
        if mask:
            self.register_buffer("bias", torch.ones(c.block_size, c.block_size).tril()[None, None])

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class Feedforward(nn.Module):
    def __init__(self, c, bias, gelu):
        super().__init__()
        self.c_fc = nn.Linear(c.n_embd, 4 * c.n_embd, bias=bias)
        self.gelu = nn.GELU(approximate=gelu)
        self.c_proj = nn.Linear(4 * c.n_embd, c.n_embd, bias=bias)

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, c, bias, gelu, mask):
        super().__init__()
        self.ln_1, self.ln_2 = Norm(c.n_embd, bias), Norm(c.n_embd, bias)
        self.attn = SelfAttention(c, bias, mask)
        self.mlp = Feedforward(c, bias, gelu)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TheirGPT(nn.Module):
    """Both projects' network: the lecture computes GELU by tanh, nanoGPT exactly, and without biases if asked."""

    def __init__(self, config, *, bias=True, gelu="tanh", mask=False):
        super().__init__()
        c = config
        parts = {
            "wte": nn.Embedding(c.vocab_size, c.n_embd),
            "wpe": nn.Embedding(c.block_size, c.n_embd),
            "h": nn.ModuleList([Block(c, bias, gelu, mask) for _ in range(c.n_layer)]),
            "ln_f": Norm(c.n_embd, bias),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        generator = torch.Generator().manual_seed(0)
        for (
            parameter
        ) in self.parameters():  # large, so that a swapped name, a transpose or another GELU shows
            nn.init.normal_(parameter, std=0.4, generator=generator)

    @torch.no_grad()
    def forward(self, ids):
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


def config_class(module: str, bases: tuple[type, ...] = ()) -> type:
    """A GPTConfig whose instances are pickled as that module's."""

    def init(self, **fields):
        self.__dict__.update(fields)

    return type("GPTConfig", bases, {"__module__": module, "__init__": init})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, TheirGPT]]:
    """Writes a checkpoint as a project does, and gives its path and the network that wrote it."""

    def write(
        project: str,
        *,
        module: str = "__main__",
        prefix: str = "",
        legacy: bool = False,
        change: Callable[[dict[str, Any]], Any] = lambda content: content,
        bias: bool = True,
        mask: bool = True,
        **shape: int,
    ) -> tuple[Path, TheirGPT]:
        fields, patch = SHAPE | shape, pytest.MonkeyPatch()
        lecture = project == "build-nanogpt"
        config: Any = types.SimpleNamespace(**fields)
        their = TheirGPT(config, bias=bias, gelu="tanh" if lecture else "none", mask=mask)
        weights = their.state_dict()
        if prefix:
            weights = type(weights)((prefix + name, tensor) for name, tensor in weights.items())
        content: dict[str, Any]
        if lecture:
            kind = config_class(module)
            place = sys.modules["__main__"] if module == "__main__" else types.ModuleType(module)
            patch.setitem(sys.modules, module, place)
            patch.setattr(place, "GPTConfig", kind, raising=False)
            content = {"model": weights, "config": kind(**fields), "step": 19072, "val_loss": 3.0746}
        else:
            content = {
                "model": weights,
                "optimizer": torch.optim.AdamW(their.parameters()).state_dict(),
                "model_args": {**fields, "bias": bias, "dropout": 0.2},
                "iter_num": 2000,
                "best_val_loss": torch.tensor(1.4697),
                "config": {"dataset": "shakespeare_char", "compile": True},
            }
        path = tmp_path / "their.pt"
        torch.save(change(content), path, _use_new_zipfile_serialization=not legacy)
        patch.undo()  # the class is gone, as for whoever imports
        return path, their

    return write
