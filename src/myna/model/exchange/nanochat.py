"""Checkpoints of nanochat, as our NanoChat: those of its first network, of October 2025 to January 2026.

A checkpoint is two files: `model_NNNNNN.pt`, the weights by name, and `meta_NNNNNN.json`, whose `model_config` has the
sizes. The weights don't tell the number of heads, so both are needed. The rest of the function stands in nanochat's
code, in no file: a softcap of 15, a rotary base of 10,000, and torch's own epsilon in the norms. Since January 2026 its
networks have more tensors, and later also other constants. The tensors tell, and such a checkpoint is refused.

What else folds into this network computes the same: shared keys and values are copied to the heads that share them,
scales of the residual stream that were never trained are left out, and so are rows that pad the vocabulary, which
nanochat cuts from its logits.

Sources:
    https://github.com/karpathy/nanochat: nanochat/gpt.py, nanochat/checkpoint_manager.py and dev/LOG.md
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from myna.errors import ModelError
from myna.model.config import GeluName, NanoChatOptions, NetworkConfig
from myna.model.exchange.foreign import checked, filled, is_padded_to, named_tensors
from myna.model.layout import require_all, shape_of, shown
from myna.model.network import NETWORKS, Network
from myna.model.weights import build_without_memory
from myna.parsing import number, read_object, whole
from myna.settings import is_whole

# As in its code of that time. The epsilon is what torch's rms_norm takes where none is given, in bf16, too.
CONSTANTS = NanoChatOptions(softcap=15.0, rotary_base=10_000.0, norm_epsilon=torch.finfo(torch.float32).eps)
EMBEDDING, HEAD = "transformer.wte.weight", "lm_head.weight"
# nanochat's name of a size: ours.
SIZES = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "sequence_len": "block_size"}
SETTINGS = (*SIZES, "vocab_size", "n_kv_head", "window_pattern")
_BLOCK = re.compile(r"transformer\.h\.(\d+)\.(.+)")
OURS = {
    "attn.c_q.weight": "self_attn.q_proj.weight",
    "attn.c_k.weight": "self_attn.k_proj.weight",
    "attn.c_v.weight": "self_attn.v_proj.weight",
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_proj.weight": "mlp.fc2.weight",
}
# Tensors of later networks, and what they are. Their networks also have other constants.
VARIANTS = (
    (re.compile(r"value_embeds\.|.*\.attn\.ve_gate\."), "value embeddings"),
    (re.compile(r"resid_lambdas|x0_lambdas"), "trained scales of the residual stream"),
    (re.compile(r"smear_"), "a mix with the token before (smear)"),
    (re.compile(r"backout_"), "a difference to the middle layer (backout)"),
    (re.compile(r"bigram_"), "embeddings of pairs of tokens"),
)
# Scales as they are before training, which change nothing.
NEUTRAL = {"resid_lambdas": 1.0, "x0_lambdas": 0.0}


@dataclass(frozen=True)
class Checkpoint:
    """What such a pair of files holds. See `ForeignCheckpoint`.

    Attributes:
        weights: the tensors by nanochat's names, the vocabulary with its padding.
        config: the shape, by our names.
        kv_heads: heads that have keys and values of their own; the others share them.
        notes: what was left out already, in words.
    """

    weights: Mapping[str, Tensor]
    config: NetworkConfig
    kv_heads: int
    notes: tuple[str, ...]
    about: str
    where: str

    gelu = None
    own_tokenizer = "tokenizer.pkl, a pickle, which Myna never opens since a pickle can run code"

    @property
    def n_vocab(self) -> int:
        """The ids of nanochat's tokenizer."""
        return self.config.vocab_size

    def build(self, n_vocab: int, gelu: GeluName | None) -> tuple[Network, list[str]]:
        """See `ForeignCheckpoint.build`."""
        kind = NETWORKS["nanochat"]
        network = build_without_memory(kind, dataclasses.replace(self.config, vocab_size=n_vocab))
        theirs = {_theirs(name): name for name, _ in network.named_parameters()}
        if extra := self.weights.keys() - theirs:
            raise ModelError(
                f"{self.where} has {min(extra)!r}, and its meta file says n_layer {self.config.n_layer}; the two don't "
                "belong together"
            )
        require_all(self.weights, dict.fromkeys(theirs, self.weights[EMBEDDING]), self.where)
        notes = list(self.notes)
        weights = {theirs[name]: tensor for name, tensor in self.weights.items()}
        if n_vocab < (rows := len(self.weights[EMBEDDING])):
            for name in (EMBEDDING, HEAD):
                weights[theirs[name]] = self.weights[name][:n_vocab]
            notes.append(
                f"cut rows {n_vocab:,} to {rows - 1:,} of the embedding and the head: no id stands for them"
            )
        if (shared := self.config.n_head // self.kv_heads) > 1:
            for name in weights:
                if name.endswith(("k_proj.weight", "v_proj.weight")):
                    weights[name] = self._for_all_heads(name, weights[name], shared)
            notes.append(
                f"copied the keys and values of {self.kv_heads} heads to the {self.config.n_head} that share them, "
                "which computes the same with more weights"
            )
        notes.append(
            f"softcap {CONSTANTS.softcap:g}, rotary base {CONSTANTS.rotary_base:,.0f}, epsilon "
            f"{CONSTANTS.norm_epsilon:.2g}: as nanochat's code has them, since its files don't say"
        )
        return filled(network, checked(network, weights, self.where)), notes

    def _for_all_heads(self, name: str, tensor: Tensor, shared: int) -> Tensor:
        """Rows of keys or values, (kv_heads * D, C), repeated for each head that uses them: (C, C)."""
        C, D = self.config.n_embd, self.config.head_width
        if tensor.shape != (self.kv_heads * D, C):
            raise ModelError(
                f"{self.where}: tensor {name!r} has shape {tuple(tensor.shape)}, and {self.kv_heads} heads of keys and "
                f"values lead to {(self.kv_heads * D, C)}; is this another model's meta file?"
            )
        return tensor.view(self.kv_heads, D, C).repeat_interleave(shared, dim=0).view(C, C)


def read(content: Any, path: Path) -> Checkpoint | None:
    """The checkpoint whose weights a file of `torch.save` held; None where it is not nanochat's.

    Raises:
        ModelError: it computes something else than our network, or its meta file is missing or says something else.
    """
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        return None
    if not any(name.endswith(EMBEDDING) for name in content) or not any(
        name.endswith(".attn.c_q.weight") for name in content
    ):
        return None
    where = str(path)
    weights = named_tensors(content, where)
    meta, meta_path = _meta(path)
    config, kv_heads = _shape(meta, str(meta_path))
    notes = _leave_out_neutral(weights, config)
    _refuse_variants(weights, where)
    for name in (EMBEDDING, HEAD):
        shape = tuple(weights[name].shape) if name in weights else None
        if shape is None or len(shape) != 2 or not is_padded_to(shape[0], config.vocab_size):
            raise ModelError(
                f"{where}: the shape of {name} is {shape}, and {meta_path} says vocab_size {config.vocab_size}; the "
                "two don't belong together"
            )
    return Checkpoint(weights, config, kv_heads, tuple(notes), _about(meta), where)


def _theirs(ours: str) -> str:
    """nanochat's name of a parameter of ours."""
    if ours in ("embed_tokens.weight", "lm_head.weight"):
        return EMBEDDING if ours == "embed_tokens.weight" else HEAD
    _, layer, part = ours.split(".", 2)
    return f"transformer.h.{layer}." + next(theirs for theirs, name in OURS.items() if name == part)


def _meta(path: Path) -> tuple[dict[str, Any], Path]:
    """What stands in the meta file beside the weights, and where that is.

    Raises:
        ModelError: it is not there, or can't be found.
    """
    found = re.fullmatch(r"model_(\d+)\.pt", path.name)
    if found is None:
        raise ModelError(
            f"{path} holds weights of nanochat, which need their meta file: call them model_NNNNNN.pt and "
            "meta_NNNNNN.json, as nanochat does, in one folder"
        )
    meta = path.with_name(f"meta_{found[1]}.json")
    missing = (
        f"{meta} is missing, and the weights alone don't tell the number of heads; copy it from where {path.name} came "
        "from"
    )
    return read_object(meta, ModelError, "copy it again", missing=missing), meta


def _shape(meta: Mapping[str, Any], where: str) -> tuple[NetworkConfig, int]:
    """The shape in a meta file, and the number of heads with keys and values of their own.

    Raises:
        ModelError: names the key, or a size that cannot be.
    """
    stated = meta.get("model_config")
    if not isinstance(stated, dict):
        raise ModelError(f"{where} has no model_config; is it the meta file of a nanochat checkpoint?")
    if unknown := [name for name in stated if name not in SETTINGS]:
        raise ModelError(
            f"{where}: model_config has {', '.join(unknown)}, which nanochat's first network has not; what that "
            "changes is not known here, so the model can't be imported"
        )
    if absent := [name for name in SETTINGS if name not in stated and name != "window_pattern"]:
        raise ModelError(f"{where}: model_config lacks {', '.join(absent)}; copy the file again")
    sizes = {ours: stated[theirs] for theirs, ours in SIZES.items()}
    kind = NETWORKS["nanochat"]
    config = shape_of(kind, where, **sizes, vocab_size=stated["vocab_size"], options=CONSTANTS)
    kv_heads = stated["n_kv_head"]
    if not is_whole(kv_heads) or kv_heads < 1 or config.n_head % kv_heads:
        raise ModelError(
            f"{where}: n_kv_head is {shown(kv_heads)}, and n_head {config.n_head} is no multiple of it; correct it"
        )
    pattern = stated.get("window_pattern", "L")
    if not isinstance(pattern, str) or not re.fullmatch("[SsLl]+", pattern):
        raise ModelError(f"{where}: window_pattern is {shown(pattern)}; nanochat's is made of S and L")
    # The last layer always sees everything.
    if any(pattern[layer % len(pattern)] in "Ss" for layer in range(config.n_layer - 1)):
        raise ModelError(
            f"{where}: window_pattern {pattern} has layers that see the last tokens alone (S), and every layer of this "
            "network sees all before it, so the model can't be imported; use nanochat itself for it"
        )
    return config, int(kv_heads)


def _leave_out_neutral(weights: dict[str, Tensor], config: NetworkConfig) -> list[str]:
    """Takes the scales out that were never trained: x = 1 x + 0 x0. Says so."""
    neutral = [
        name
        for name, value in NEUTRAL.items()
        if name in weights
        and weights[name].shape == (config.n_layer,)
        and bool((weights[name] == value).all())
    ]
    for name in neutral:
        del weights[name]
    return [f"left out {' and '.join(neutral)}, which change nothing"] if neutral else []


def _refuse_variants(weights: Mapping[str, Tensor], where: str) -> None:
    """
    Raises:
        ModelError: there are tensors that our network does not have; says what they are.
    """
    extra = [name for name in weights if not _is_ours(name)]
    if not extra:
        return
    found: dict[str, str] = {}
    for name in extra:
        what = next((what for pattern, what in VARIANTS if pattern.match(name)), "tensors unknown here")
        found.setdefault(what, name)
    listed = ", ".join(f"{what} ({name})" for what, name in found.items())
    raise ModelError(
        f"{where} has {listed}, and this network is nanochat's first one, of 2025, without them; use nanochat itself "
        "for this model"
    )


def _is_ours(name: str) -> bool:
    block = _BLOCK.fullmatch(name)
    return name in (EMBEDDING, HEAD) or (block is not None and block[2] in OURS)


def _about(meta: Mapping[str, Any]) -> str:
    about = "nanochat's checkpoint"
    if (step := whole(meta, "step")) is not None:
        about += f" of step {step:,}"
    if (bits := number(meta, "val_bpb")) is not None:
        return f"{about}, validation {bits:.4f} bits per byte"
    if (loss := number(meta, "val_loss")) is not None:
        return f"{about}, validation loss {loss:.4f}"
    return about
