"""NanoChat's exporter: the layout of transformers' `NanoChatForCausalLM`, which transformers loads directly.

Names differ from ours by a prefix, and the vocabulary is not padded. Two options lead out of what that class computes;
a network with one of them is kept in our own layout.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from myna.errors import ModelError
from myna.model.config import NanoChatOptions, NetworkConfig, nanochat_options
from myna.model.layout import (
    CHANGES_WHAT_IS_COMPUTED,
    OWN_PREFIX,
    OwnLayout,
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
from myna.settings import is_number

PREFIX = "model."
HEAD = "lm_head.weight"
ACTIVATIONS = {"relu2": "relu2", "gelu": "gelu_pytorch_tanh"}

# What a config.json of transformers' NanoChat may say of the function: first what an absent key means, then what else
# computes the same.
COMPUTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("relu2", "gelu_pytorch_tanh", "gelu_new"),
    "attention_bias": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "is_causal": (True,),
    "chunk_size_feed_forward": (0,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (None, 1.0),
    # Of nanochat's own checkpoints: variants that transformers' class does not compute.
    **dict.fromkeys(("window_pattern", "value_embeds", "n_kv_head"), (None,)),
    **dict.fromkeys(CHANGES_WHAT_IS_COMPUTED, (None,)),
}
# The sizes by our names: transformers' name, and what an absent key means.
SIZES = {
    "n_layer": ("num_hidden_layers", 12),
    "n_head": ("num_attention_heads", 6),
    "n_embd": ("hidden_size", 768),
    "block_size": ("max_position_embeddings", 2048),
    "vocab_size": ("vocab_size", 50304),
    "dropout": ("attention_dropout", 0.0),
}


class NanoChatLayout(OwnLayout):
    """NanoChat as transformers keeps it, or in our own layout where an option leads out of that."""

    def own_because(self, network: Network) -> str | None:
        options = nanochat_options(network.config)
        for name in ("qk_norm", "embedding_norm"):
            if not getattr(options, name):
                return (
                    f"transformers' NanoChat always has {name}, and this network was made with --network.no-"
                    f"{name.replace('_', '-')}"
                )
        return None

    def config_json(self, network: Network, eot: int | None) -> dict[str, Any]:
        if self.own_because(network):
            return super().config_json(network, eot)
        config, options = network.config, nanochat_options(network.config)
        return {
            "architectures": ["NanoChatForCausalLM"],
            "model_type": "nanochat",
            **{theirs: getattr(config, ours) for ours, (theirs, _) in SIZES.items()},
            "num_key_value_heads": config.n_head,
            "intermediate_size": 4 * config.n_embd,
            "hidden_act": ACTIVATIONS[options.activation],
            "rms_norm_eps": options.norm_epsilon,
            "rope_parameters": {"rope_type": "default", "rope_theta": options.rotary_base},
            "final_logit_softcapping": options.softcap or None,
            "attention_bias": False,
            "initializer_range": 0.02,
            "tie_word_embeddings": options.tied_head,
            "bos_token_id": eot,
            "eos_token_id": eot,
            "pad_token_id": None,  # absent it would be 1, an id like any other
            "torch_dtype": "float32",
        }

    def read_config(self, raw: Mapping[str, Any], kind: NetworkKind, where: str) -> NetworkConfig:
        if str(raw.get("model_type")).startswith(OWN_PREFIX):
            return super().read_config(raw, kind, where)
        require_values(raw, COMPUTED, "NanoChat", where)
        options = NanoChatOptions(
            softcap=_softcap(raw, where),
            activation="relu2" if raw.get("hidden_act", "relu2") == "relu2" else "gelu",
            tied_head=_tied(raw, where),
            rotary_base=_rotary_base(raw, where),
            norm_epsilon=_above_0(raw.get("rms_norm_eps", 1e-6), "rms_norm_eps", where),
        )
        sizes = {ours: raw.get(theirs, default) for ours, (theirs, default) in SIZES.items()}
        config = shape_of(kind, where, **sizes, options=options)
        for key, default, wanted, what in (
            ("intermediate_size", 8192, 4 * config.n_embd, "this network's MLP is 4 * hidden_size wide"),
            ("num_key_value_heads", None, config.n_head, "every head of this network has keys of its own"),
            ("head_dim", None, config.head_width, "this network's heads share hidden_size evenly"),
        ):
            value = raw.get(key, default)
            if not (value is None and default is None) and not equal(value, wanted):
                raise ModelError(f"{where}: {key} is {shown(value)}, where {wanted} is needed; {what}")
        return config

    def to_file(self, network: Network, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        arrays = super().to_file(network, state)
        return arrays if self.own_because(network) else {_theirs(name): a for name, a in arrays.items()}

    def from_file(self, network: Network, arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Tensor]:
        if self.own_because(network):
            return super().from_file(network, arrays, where)
        expected = dict(network.named_parameters())
        named = {_theirs(name): name for name in expected}
        state: dict[str, Tensor] = {}
        copied_head = None
        for full_name, array in arrays.items():
            tensor = torch.from_numpy(np.array(array, np.float32))
            if full_name == HEAD and HEAD not in expected:
                copied_head = tensor
                continue
            if full_name not in named:
                raise ModelError(f"{where}: the network has no tensor {full_name!r}; is this another model?")
            name = named[full_name]
            state[name] = taken(name, tensor, network, expected, where)
        require_all(state, expected, where)
        embedding = "embed_tokens.weight"
        if copied_head is not None and not same(copied_head, network.unpadded(embedding, state[embedding])):
            raise ModelError(
                f"{where}: {HEAD!r} differs from the token embedding, and config.json says that they are tied; set "
                "tie_word_embeddings to false, or remove the tensor"
            )
        return state

    def check(self, network: Network) -> None:
        """See `require_formula`."""
        if self.own_because(network):
            super().check(network)
        else:
            require_formula(network, nanochat_logits, "Hugging Face's NanoChat")


def _theirs(name: str) -> str:
    return name if name == HEAD else PREFIX + name


def _softcap(raw: Mapping[str, Any], where: str) -> float:
    value = raw.get("final_logit_softcapping", 15.0)
    if value is not None and not (is_number(value) and value > 0):
        raise ModelError(
            f"{where}: final_logit_softcapping is {shown(value)}; give a number above 0, or null for none"
        )
    return float(value or 0.0)


def _tied(raw: Mapping[str, Any], where: str) -> bool:
    value = raw.get("tie_word_embeddings", False)
    if not isinstance(value, bool):
        raise ModelError(f"{where}: tie_word_embeddings is {shown(value)}; give true or false")
    return value


def _rotary_base(raw: Mapping[str, Any], where: str) -> float:
    """
    Raises:
        ModelError: another kind of rotary positions than the plain one; names the key.
    """
    key = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    rope = raw.get(key) or {}
    if not isinstance(rope, Mapping):
        raise ModelError(f"{where}: {key} is {shown(rope)}; give an object with rope_type and rope_theta")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ModelError(f"{where}: {key} has rope_type {shown(kind)}; this network computes 'default' alone")
    if other := rope.keys() - {"rope_type", "type", "rope_theta"}:
        raise ModelError(f"{where}: {key} has {min(other, key=str)!r}, which this network does not compute")
    return _above_0(rope.get("rope_theta", raw.get("rope_theta", 10_000.0)), "rope_theta", where)


def _above_0(value: Any, key: str, where: str) -> float:
    if not is_number(value) or not 0 < value < float("inf"):
        raise ModelError(f"{where}: {key} is {shown(value)}; give a number above 0")
    return float(value)


def nanochat_logits(weights: Mapping[str, Tensor], ids: Tensor, config: NetworkConfig) -> Tensor:
    """NanoChat as a formula, without modules: what files in this layout promise. Ids (B, T) to logits (B, T, V)."""
    options = nanochat_options(config)
    B, T = ids.shape
    H, D = config.n_head, config.head_width

    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + options.norm_epsilon).sqrt()

    steps = torch.arange(D // 2, dtype=torch.float32) * 2 / D
    angles = torch.arange(T)[:, None] * (1 / options.rotary_base**steps)
    turn = torch.complex(angles.cos(), -angles.sin())  # clockwise

    def turned(x: Tensor) -> Tensor:
        pairs = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * turn
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    x = norm(weights["embed_tokens.weight"][ids])
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    for layer in range(config.n_layer):
        of = f"layers.{layer}"
        q, k, v = (
            (norm(x) @ weights[f"{of}.self_attn.{name}_proj.weight"].T).view(B, T, H, D).transpose(1, 2)
            for name in "qkv"
        )
        scores = norm(turned(q)) @ norm(turned(k)).transpose(2, 3) / D**0.5
        y = scores.masked_fill(later, float("-inf")).softmax(dim=-1) @ v
        x = x + y.transpose(1, 2).reshape(B, T, H * D) @ weights[f"{of}.self_attn.o_proj.weight"].T
        inner = norm(x) @ weights[f"{of}.mlp.fc1.weight"].T
        active = (
            inner.clamp(min=0) ** 2 if options.activation == "relu2" else F.gelu(inner, approximate="tanh")
        )
        x = x + active @ weights[f"{of}.mlp.fc2.weight"].T
    head = weights["embed_tokens.weight" if options.tied_head else HEAD]
    logits = norm(x) @ head[: config.vocab_size].T
    return options.softcap * torch.tanh(logits / options.softcap) if options.softcap else logits
