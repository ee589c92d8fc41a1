"""A checkpoint of another project, between its file and a network of ours; and what all its readers need."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from myna.errors import ModelError
from myna.model.config import GeluName
from myna.model.exchange import IMPORTERS
from myna.model.exchange.torch_file import read_torch_file
from myna.model.layout import taken
from myna.model.network import Network

_WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")  # torch.compile's and DDP's
# What vocabularies are rounded up to: nanoGPT's comment and nanochat say 64; the lecture's 50,304 is a multiple of 128
# as well.
ROUNDED_TO = (64, 128)


class ForeignCheckpoint(Protocol):
    """A checkpoint that one of the projects wrote, and whose network we have."""

    @property
    def about(self) -> str:
        """For people: whose checkpoint, of which step, with which loss."""

    @property
    def where(self) -> str:
        """The file, for messages."""

    @property
    def n_vocab(self) -> int:
        """The ids of its vocabulary; with the padding where the file does not tell the two apart."""

    @property
    def own_tokenizer(self) -> str | None:
        """For people: where the project keeps the tokenizer of this model; None where its models have GPT-2's."""

    @property
    def gelu(self) -> GeluName | None:
        """The form of GELU that the project computes; None for a network without GELU."""

    def build(self, n_vocab: int, gelu: GeluName | None) -> tuple[Network, list[str]]:
        """The network, fp32 on the CPU, and what was changed to make it, in words.

        Args:
            n_vocab: ids of the tokenizer; rows beyond are padding, and are cut.
        Raises:
            ModelError: a tensor is missing, has another shape than the config says, or is not the network's.
        """


def read_foreign(path: Path) -> ForeignCheckpoint:
    """The checkpoint in a file of `torch.save`.

    Raises:
        ModelError: it is no project's that we know, or of a network that we don't have. CheckpointError: it is no such
            file, damaged, or more than weights. UnreadableError: it can't be read.
    """
    content = read_torch_file(path)
    for importer in IMPORTERS:
        if (checkpoint := importer.load()(content, path)) is not None:
            return checkpoint
    known = ", or ".join(importer.what for importer in IMPORTERS)
    raise ModelError(f"{path} holds {_in_words(content)}; give {known}")


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


def unwrapped(full_name: Any) -> str:
    """A tensor's name without what torch.compile and DDP put before it.

    >>> unwrapped("module._orig_mod.lm_head.weight")
    'lm_head.weight'
    """
    return _WRAPPERS.sub("", str(full_name))


def named_tensors(
    stored: Mapping[Any, Any], where: str, rename: Callable[[str], str | None] = lambda name: name
) -> dict[str, Tensor]:
    """The tensors by name, without wrappers' prefixes.

    Args:
        rename: gives the name to keep a tensor under, and None for one that is no weight.
    Raises:
        ModelError: something is no tensor of numbers, or is there twice.
    """
    weights: dict[str, Tensor] = {}
    for full_name, tensor in stored.items():
        if (name := rename(unwrapped(full_name))) is None:
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


def checked(network: Network, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors with the vocabulary padded, after their names and shapes were checked. Nothing is computed yet.

    Raises:
        ModelError: a tensor has another shape than the network's, or is not the network's.
    """
    expected = dict(network.named_parameters())
    return {name: taken(name, tensor, network, expected, where) for name, tensor in weights.items()}


def filled(network: Network, state: Mapping[str, Tensor]) -> Network:
    """The network with these weights, in fp32, for evaluation."""
    network.load_state_dict(
        {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}, assign=True
    )
    return network.eval()
