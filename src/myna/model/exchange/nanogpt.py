"""Checkpoints of build-nanogpt (the lecture's project) and nanoGPT, as our GPT-2.

Both keep nn.Linear's layout, which is ours, under `transformer.` names. They differ from us in four things. The
vocabulary is padded in the file, too. The head is a second name of the embedding. nanoGPT can be trained without
biases. And nanoGPT computes the exact GELU.

Sources:
    https://github.com/karpathy/build-nanogpt/blob/master/train_gpt2.py
    https://github.com/karpathy/nanoGPT/blob/master/model.py and train.py; its pull request 274 of June 2023 replaced
    the tanh form of GELU by the exact one, and no checkpoint says which one it was trained with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from myna.errors import ModelError
from myna.model.config import GeluName, GPTOptions
from myna.model.exchange.foreign import checked, filled, named_tensors
from myna.model.exchange.torch_file import Fields
from myna.model.gpt2_layout import HEAD, MASK_BUFFER, PREFIX
from myna.model.layout import require_all, shape_of
from myna.model.network import NETWORKS, Network
from myna.model.weights import build_without_memory

SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
SETTINGS = (*SIZES, "bias", "dropout")


@dataclass(frozen=True)
class Checkpoint:
    """What such a file holds. See `ForeignCheckpoint`.

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

    own_tokenizer = None

    @property
    def n_vocab(self) -> int:
        """Rows of the embedding, its padding included."""
        return len(self.weights["wte.weight"])

    def build(self, n_vocab: int, gelu: GeluName | None) -> tuple[Network, list[str]]:
        """See `ForeignCheckpoint.build`.

        Raises:
            ModelError: besides, the head is not the embedding.
        """
        where, config = self.where, self.config
        if config.get("vocab_size") != self.n_vocab:
            raise ModelError(
                f"{where}: its config says vocab_size {config.get('vocab_size')!r}, and transformer.wte.weight has "
                f"{self.n_vocab} rows; the two don't belong together"
            )
        shape = {name: config.get(name) for name in SIZES} | {"vocab_size": n_vocab}
        options = GPTOptions(gelu=gelu or self.gelu)
        kind = NETWORKS["gpt2"]
        network = build_without_memory(
            kind, shape_of(kind, where, **shape, dropout=config.get("dropout", 0.0), options=options)
        )
        notes = []
        weights = dict(self.weights)
        embedding = weights["wte.weight"]
        head = weights.pop(HEAD, embedding)
        if n_vocab < self.n_vocab:
            weights["wte.weight"] = embedding[:n_vocab]
            notes.append(
                f"cut rows {n_vocab:,} to {self.n_vocab - 1:,} of the embedding: the tokenizer has no ids for them"
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
        state = checked(network, weights, where)
        require_all(state, expected, where)
        if not torch.equal(head, embedding):
            raise ModelError(
                f"{where}: {HEAD!r} differs from transformer.wte.weight, so the head is untied; this network has one "
                "tensor for both and cannot load such a model"
            )
        return filled(network, state), notes


def read(content: Any, path: Path) -> Checkpoint | None:
    """The checkpoint in what a file of `torch.save` held; None where it is neither project's.

    Raises:
        ModelError: it is of another network.
    """
    where = str(path)
    gelu: GeluName = "tanh"
    is_dict = isinstance(content, dict) and isinstance(content.get("model"), dict)
    if is_dict and isinstance(content.get("model_args"), dict):
        project, gelu, config = "nanoGPT", "exact", content["model_args"]
        step, loss = content.get("iter_num"), content.get("best_val_loss")
    elif is_dict and isinstance(content.get("config"), Fields):
        project, config = "build-nanogpt", vars(content["config"])
        step, loss = content.get("step"), content.get("val_loss")
    else:
        return None
    unknown = [str(name) for name in config if name not in SETTINGS]
    if unknown:
        raise ModelError(
            f"{where}: its config has {', '.join(unknown)}, which {project} has not; what that changes is not known "
            "here, so the model can't be imported"
        )
    weights = named_tensors(content["model"], where, _our_name)
    if "wte.weight" not in weights or weights["wte.weight"].dim() != 2:
        raise ModelError(f"{where}: model has no matrix transformer.wte.weight; is this another network?")
    about = f"{project}'s checkpoint"
    if (number := _number(step)) is not None:
        about += f" of step {number:,.0f}"
    if (number := _number(loss)) is not None:
        about += f", validation loss {number:.4f}"
    return Checkpoint(weights, config, gelu, about, where)


def _number(value: Any) -> float | None:
    """A step or a loss, which may be a tensor of one number; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return float(value) if isinstance(value, int | float) else None


def _our_name(name: str) -> str | None:
    """Without the prefix; None for a causal mask."""
    ours = name.removeprefix(PREFIX)
    return None if MASK_BUFFER.match(ours) else ours
