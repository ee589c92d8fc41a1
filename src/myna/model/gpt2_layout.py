"""GPT-2's exporter: the layout of Hugging Face's GPT-2 files, which `transformers` loads directly.

It differs from ours in three things. Names begin with `transformer.` (in files that transformers writes; the hub's own
`gpt2` has no prefix, and carries the causal masks as `h.N.attn.bias` buffers). The four matrices of a block are
stored (in, out), as OpenAI's Conv1D had them; nn.Linear wants (out, in). And the vocabulary is not padded.
"""

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.errors import ModelError
from myna.model.config import GeluName, GPTOptions, NetworkConfig, gelu_of
from myna.model.layout import as_float32, require_all, shape_of, taken
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
    # Each of these changes what transformers computes, or which weights it reads.
    **dict.fromkeys(
        (
            "quantization_config",
            "per_layer_config",
            "fusion_config",
            "transformers_weights",
            "attribute_map",
            "layer_types",
            "sliding_window",
            "attention_chunk_size",
            "decoder",
            "generator",
            "text_config",
            "text_encoder",
        ),
        (None,),
    ),
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

    exports_to: str | None = "Hugging Face's GPT-2"

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
        for key, same in COMPUTED.items():
            value = raw.get(key, same[0])
            if not any(_equal(value, one) for one in same):
                known = " or ".join(map(repr, same))
                raise ModelError(
                    f"{where}: {key} is {_shown(value)}; this network computes GPT-2 with {known}"
                )
        for key, own in ALSO_NAMED.items():
            if key in raw and not _equal(raw[key], raw.get(own)):
                raise ModelError(
                    f"{where}: {key} is {_shown(raw[key])} and {own} {_shown(raw.get(own))}; remove the wrong one"
                )
        dropouts = {key: raw.get(key, USUAL_DROPOUT) for key in DROPOUTS}
        if any(value != dropouts["resid_pdrop"] for value in dropouts.values()):
            raise ModelError(
                f"{where}: {', '.join(f'{key} is {_shown(value)}' for key, value in dropouts.items())}; this network "
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
        if raw.get("n_inner") is not None and not _equal(raw["n_inner"], 4 * config.n_embd):
            raise ModelError(
                f"{where}: n_inner is {_shown(raw['n_inner'])}; this network's MLP is 4 * n_embd wide"
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
            if name in state and not _same(state[name], tensor):
                raise ModelError(
                    f"{where}: {name!r} and {PREFIX + name!r} stand for one tensor and differ; remove the wrong one"
                )
            state[name] = tensor
        require_all(state, expected, where)
        if HEAD in arrays:
            _check_head(torch.from_numpy(np.array(arrays[HEAD])), state["wte.weight"], network, where)
        return state

    def check(self, network: Network) -> None:
        """Compares a tiny network of this class with the formula below, and the network's parts with a new one's.

        So it finds a changed class (another activation or norm) and a changed instance (a part that was replaced).
        """
        kind: Any = type(network)
        tiny = dataclasses.replace(network.config, n_layer=2, n_head=2, n_embd=8, block_size=8, vocab_size=11)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            example = kind(tiny).eval().double()
            for parameter in example.parameters():
                nn.init.normal_(parameter, std=0.5)
            ids = torch.randint(11, (2, 8))
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                difference = float(
                    (example(ids) - gpt2_logits(dict(example.named_parameters()), ids, tiny)).abs().max()
                )
        changed = _changed_part(network)
        if not difference < 1e-9 or changed:
            what = f"{changed} was changed" if changed else f"its logits differ by {difference:.2g}"
            raise ModelError(
                f"the network {type(network).__name__} does not compute GPT-2 any more ({what}), so files in "
                f"{self.exports_to} layout would load as another model; give it a line of its own in NETWORKS, and "
                "`layout = OwnLayout()`"
            )


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers; a NaN is the same as a NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _check_head(head: Tensor, embedding: Tensor, network: Network, where: str) -> None:
    """
    Raises:
        ModelError: the file's head is not the token embedding, so transformers computes with both.
    """
    if not _same(head, network.unpadded("wte.weight", embedding)):
        raise ModelError(
            f"{where}: {HEAD!r} differs from wte.weight, so the head is untied; this network has one tensor for both "
            "and cannot load such a model"
        )


def _equal(value: Any, known: Any) -> bool:
    """Equal, and of one type: in JSON `1` is not `true`, and `"3"` and `3.0` are no whole numbers."""
    return type(value) is type(known) and bool(value == known)


def _shown(value: Any) -> str:
    """A value from a JSON file, short enough for a line."""
    return reprlib.repr(value)


def _changed_part(network: Any) -> str | None:
    """The first part that differs from a new network's of the same shape: its class, a constant, or its function."""
    with torch.device("meta"):
        new = dict(type(network)(network.config).named_modules())
    parts = dict(network.named_modules())
    for name in [*parts, *new]:
        if name not in parts or name not in new or _differs(parts[name], new[name]):
            return name or "the network itself"
    return None


def _differs(part: nn.Module, new: nn.Module) -> bool:
    mine, theirs = vars(part), vars(new)
    constants = [name for name in theirs if name[0] != "_" and name not in ("training", "recompute")]
    return (
        type(part) is not type(new)
        or any(name not in mine or mine[name] != theirs[name] for name in constants)
        or any(callable(mine[name]) for name in mine.keys() - theirs.keys())  # put over a method
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
