"""Checkpoints of build-nanogpt (the lecture's project) and nanoGPT, as our GPT-2.

Both keep nn.Linear's layout, which is ours, under `transformer.` names. They differ from us in four things. The
vocabulary is padded in the file, too. The head is a second name of the embedding. nanoGPT can be trained without
biases. And nanoGPT computes the exact GELU.

Sources:
    https://github.com/karpathy/build-nanogpt/blob/master/train_gpt2.py
    https://github.com/karpathy/nanoGPT/blob/master/model.py and train.py; its pull request 274 of June 2023 replaced
    the tanh form of GELU by the exact one, and no checkpoint says which one it was trained with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from myna.errors import ModelError
from myna.model.config import GeluName, GPTOptions
from myna.model.exchange.torch_file import Fields
from myna.model.gpt2_layout import HEAD, MASK_BUFFER, PREFIX
from myna.model.layout import require_all, shape_of, taken
from myna.model.network import NETWORKS, Network
from myna.model.weights import build_without_memory

_WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")  # torch.compile's and DDP's
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
SETTINGS = (*SIZES, "bias", "dropout")
# What vocabularies are rounded up to: nanoGPT's comment says 64; the lecture's 50,304 is a multiple of 128 as well.
ROUNDED_TO = (64, 128)


@dataclass(frozen=True)
class Checkpoint:
    """What such a file holds.

    Attributes:
        weights: the tensors by our names, as in the file: the vocabulary with its padding, the head by itself.
        config: the values of `SETTINGS` that the file states.
        gelu: the form that the project computes.
        about: for people: whose checkpoint, of which step, with which loss.
        where: the file, for messages.
    """

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    gelu: GeluName
    about: str
    where: str

    @property
    def rows(self) -> int:
        """Rows of the embedding, its padding included."""
        return len(self.weights["wte.weight"])


def read_checkpoint(content: Any, where: str) -> Checkpoint:
    """The checkpoint in what a file of `torch.save` held.

    Raises:
        ModelError: it is neither project's, or of another network.
    """
    gelu: GeluName = "tanh"
    is_dict = isinstance(content, dict) and isinstance(content.get("model"), dict)
    if is_dict and isinstance(content.get("model_args"), dict):
        project, gelu, config = "nanoGPT", "exact", content["model_args"]
        step, loss = content.get("iter_num"), content.get("best_val_loss")
    elif is_dict and isinstance(content.get("config"), Fields):
        project, config = "build-nanogpt", vars(content["config"])
        step, loss = content.get("step"), content.get("val_loss")
    else:
        raise ModelError(
            f"{where} holds {_in_words(content)}; give a checkpoint of build-nanogpt (a dict with model and config) "
            "or of nanoGPT (a dict with model and model_args)"
        )
    unknown = [str(name) for name in config if name not in SETTINGS]
    if unknown:
        raise ModelError(
            f"{where}: its config has {', '.join(unknown)}, which {project} has not; what that changes is not known "
            "here, so the model can't be imported"
        )
    weights = _named(content["model"], where)
    if "wte.weight" not in weights or weights["wte.weight"].dim() != 2:
        raise ModelError(f"{where}: model has no matrix transformer.wte.weight; is this another network?")
    about = f"{project}'s checkpoint"
    if (number := _number(step)) is not None:
        about += f" of step {number:,.0f}"
    if (number := _number(loss)) is not None:
        about += f", validation loss {number:.4f}"
    return Checkpoint(weights, config, gelu, about, where)


def _in_words(content: Any) -> str:
    if isinstance(content, Tensor):
        return "a tensor"
    if isinstance(content, dict):
        names = [str(name) for name in content]
        return (
            f"a dict of {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
            if names
            else "an empty dict"
        )
    return f"an object of type {type(content).__name__}"


def _number(value: Any) -> float | None:
    """A step or a loss, which may be a tensor of one number; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return float(value) if isinstance(value, int | float) else None


def _named(stored: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """The tensors by our names: no wrappers' prefixes, no masks.

    Raises:
        ModelError: something is no tensor of numbers, or is there twice.
    """
    weights: dict[str, Tensor] = {}
    for full_name, tensor in stored.items():
        name = _WRAPPERS.sub("", str(full_name)).removeprefix(PREFIX)
        if MASK_BUFFER.match(name):
            continue
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.is_floating_point():
            raise ModelError(f"{where}: {full_name!r} is no tensor of plain floating-point numbers")
        if name in weights:
            raise ModelError(f"{where}: {name!r} is there twice, under two prefixes; remove one of them")
        weights[name] = tensor.detach()
    return weights


def is_padded_to(rows: int, n_vocab: int) -> bool:
    """Whether an embedding of so many rows is that of a vocabulary, as it is or rounded up.

    >>> is_padded_to(50304, 50257), is_padded_to(50257, 50257), is_padded_to(50305, 50257)
    (True, True, False)
    """
    return rows == n_vocab or any(rows == -(-n_vocab // unit) * unit for unit in ROUNDED_TO)


def build(checkpoint: Checkpoint, n_vocab: int, gelu: GeluName) -> tuple[Network, list[str]]:
    """The network of a checkpoint, fp32 on the CPU, and what was changed to make it, in words.

    Args:
        n_vocab: ids of the tokenizer; rows beyond are padding, and are cut.
    Raises:
        ModelError: a tensor is missing, has another shape than the config says, or is not GPT-2's; or the head is not
            the embedding.
    """
    where, config = checkpoint.where, checkpoint.config
    if config.get("vocab_size") != checkpoint.rows:
        raise ModelError(
            f"{where}: its config says vocab_size {config.get('vocab_size')!r}, and transformer.wte.weight has "
            f"{checkpoint.rows} rows; the two don't belong together"
        )
    shape = {name: config.get(name) for name in SIZES} | {"vocab_size": n_vocab}
    options = GPTOptions(gelu=gelu)
    kind = NETWORKS["gpt2"]
    network = build_without_memory(
        kind, shape_of(kind, where, **shape, dropout=config.get("dropout", 0.0), options=options)
    )
    notes = []
    weights = dict(checkpoint.weights)
    embedding = weights["wte.weight"]
    head = weights.pop(HEAD, embedding)
    if n_vocab < checkpoint.rows:
        weights["wte.weight"] = embedding[:n_vocab]
        notes.append(
            f"cut rows {n_vocab:,} to {checkpoint.rows - 1:,} of the embedding: the tokenizer has no ids for them"
        )
    expected: dict[str, Tensor] = dict(network.named_parameters())
    if config.get("bias") is False:
        biases = {name: torch.zeros(p.shape) for name, p in expected.items() if name.endswith(".bias")}
        if found := sorted(biases.keys() & weights.keys()):
            raise ModelError(
                f"{where}: its config says bias=False, and it has {found[0]!r}; correct one of them"
            )
        weights |= biases
        notes.append("it was trained without biases: they are zero here, which computes the same")
    # The shapes are checked before anything is computed with the numbers.
    state = {name: taken(name, tensor, network, expected, where) for name, tensor in weights.items()}
    require_all(state, expected, where)
    if not torch.equal(head, embedding):
        raise ModelError(
            f"{where}: {HEAD!r} differs from transformer.wte.weight, so the head is untied; this network has one "
            "tensor for both and cannot load such a model"
        )
    state = {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}
    network.load_state_dict(state, assign=True)
    return network.eval(), notes
