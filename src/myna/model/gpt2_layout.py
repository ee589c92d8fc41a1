"""GPT-2's exporter: the layout of Hugging Face's GPT-2 files, which `transformers` loads directly.

It differs from ours in three things. Names begin with `transformer.` (in files that transformers writes; the hub's own
`gpt2` has no prefix, and carries the causal masks as `h.N.attn.bias` buffers). The four matrices of a block are
stored (in, out), as OpenAI's Conv1D had them; nn.Linear wants (out, in). And the vocabulary is not padded.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from myna.errors import ModelError
from myna.model.config import GeluName, GPTOptions, NetworkConfig, gelu_of
from myna.model.layout import (
    CHANGES_WHAT_IS_COMPUTED,
    as_float32,
    equal,
    require_all,
    require_formula,
    require_values,
    same,
    shape_of,
    shown,
    taken,
)
from myna.model.network import Network, NetworkKind

PREFIX = "transformer."
HEAD = "lm_head.weight"  # a copy of the token embedding in some files; never read as anything else
_CONV1D = re.compile(r"\.(c_attn|c_fc|c_proj)\.weight$")
MASK_BUFFER = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$")

# What a config.json of transformers' GPT-2 may say of the function: first what an absent key means, then what else
# computes the same.
COMPUTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "tie_word_embeddings": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "is_causal": (True,),
    "chunk_size_feed_forward": (0,),
    **dict.fromkeys(CHANGES_WHAT_IS_COMPUTED, (None,)),
}
# Names of transformers' for the sizes, which stand above GPT-2's own.
ALSO_NAMED = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
}
# The names of the two forms of GELU; a file may spell the first one as gelu_pytorch_tanh too.
ACTIVATIONS: dict[GeluName, str] = {"tanh": "gelu_new", "exact": "gelu"}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
USUAL_DROPOUT = 0.1  # where the file is silent


class HuggingFaceGPT2:
    """GPT-2 as transformers keeps it."""

    def own_because(self, network: Network) -> str | None:
        return None

    def config_json(self, network: Network, eot: int | None) -> dict[str, Any]:
        config = network.config
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_positions": config.block_size,
            "n_ctx": config.block_size,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": None,
            "activation_function": ACTIVATIONS[gelu_of(config)],
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "scale_attn_weights": True,
            "tie_word_embeddings": True,
            "bos_token_id": eot,
            "eos_token_id": eot,
            "torch_dtype": "float32",
        }

    def read_config(self, raw: Mapping[str, Any], kind: NetworkKind, where: str) -> NetworkConfig:
        require_values(raw, COMPUTED, "GPT-2", where)
        for key, own in ALSO_NAMED.items():
            if key in raw and not equal(raw[key], raw.get(own)):
                raise ModelError(
                    f"{where}: {key} is {shown(raw[key])} and {own} {shown(raw.get(own))}; remove the wrong one"
                )
        dropouts = {key: raw.get(key, USUAL_DROPOUT) for key in DROPOUTS}
        if any(value != dropouts["resid_pdrop"] for value in dropouts.values()):
            raise ModelError(
                f"{where}: {', '.join(f'{key} is {shown(value)}' for key, value in dropouts.items())}; this network "
                "has one dropout for all three: give them one value (they matter in training alone)"
            )
        config = shape_of(
            kind,
            where,
            n_layer=raw.get("n_layer"),
            n_head=raw.get("n_head"),
            n_embd=raw.get("n_embd"),
            block_size=raw.get("n_positions"),
            vocab_size=raw.get("vocab_size"),
            dropout=dropouts["resid_pdrop"],
            options=GPTOptions(
                gelu="exact" if raw.get("activation_function") == ACTIVATIONS["exact"] else "tanh"
            ),
        )
        if raw.get("n_inner") is not None and not equal(raw["n_inner"], 4 * config.n_embd):
            raise ModelError(
                f"{where}: n_inner is {shown(raw['n_inner'])}; this network's MLP is 4 * n_embd wide"
            )
        return config

    def to_file(self, network: Network, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        result = {}
        for name, tensor in state.items():
            array = as_float32(network.unpadded(name, tensor))
            result[PREFIX + name] = array.T if _CONV1D.search(name) else array
        return result

    def from_file(self, network: Network, arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Tensor]:
        expected: dict[str, Tensor] = dict(network.named_parameters())
        state: dict[str, Tensor] = {}
        for full_name, array in arrays.items():
            name = full_name.removeprefix(PREFIX)
            if MASK_BUFFER.match(name) or full_name == HEAD:
                continue
            array = array.T if _CONV1D.search(name) else array
            own = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))  # our own copy, aligned
            tensor = taken(name, own, network, expected, where)
            if name in state and not same(state[name], tensor):
                raise ModelError(
                    f"{where}: {name!r} and {PREFIX + name!r} stand for one tensor and differ; remove the wrong one"
                )
            state[name] = tensor
        require_all(state, expected, where)
        if HEAD in arrays:
            _check_head(torch.from_numpy(np.array(arrays[HEAD])), state["wte.weight"], network, where)
        return state

    def check(self, network: Network) -> None:
        """See `require_formula`."""
        require_formula(network, gpt2_logits, "Hugging Face's GPT-2")


def _check_head(head: Tensor, embedding: Tensor, network: Network, where: str) -> None:
    """
    Raises:
        ModelError: the file's head is not the token embedding, so transformers computes with both.
    """
    if not same(head, network.unpadded("wte.weight", embedding)):
        raise ModelError(
            f"{where}: {HEAD!r} differs from wte.weight, so the head is untied; this network has one tensor for both "
            "and cannot load such a model"
        )


def gpt2_logits(weights: Mapping[str, Tensor], ids: Tensor, config: NetworkConfig) -> Tensor:
    """GPT-2 as a formula, without modules: what files in this layout promise. Ids (B, T) to logits (B, T, V)."""
    B, T = ids.shape
    C, H = config.n_embd, config.n_head

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (C,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = weights["wte.weight"][ids] + weights["wpe.weight"][:T]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    for layer in range(config.n_layer):
        h = f"h.{layer}"
        qkv = linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn")
        q, k, v = (part.view(B, T, H, C // H).transpose(1, 2) for part in qkv.split(C, dim=2))
        scores = (q @ k.transpose(2, 3)) / (C // H) ** 0.5
        y = scores.masked_fill(later, float("-inf")).softmax(dim=-1) @ v
        x = x + linear(y.transpose(1, 2).reshape(B, T, C), f"{h}.attn.c_proj")
        inner = linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
        if gelu_of(config) == "exact":
            bend = torch.erf(inner / 2**0.5)
        else:
            bend = torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3))
        x = x + linear(0.5 * inner * (1 + bend), f"{h}.mlp.c_proj")
    return norm(x, "ln_f") @ weights["wte.weight"][: config.vocab_size].T
