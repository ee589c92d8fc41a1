"""What the rest of Myna knows of a network: a protocol, and a table of the networks by name.

Apart from the public `myna.GPT`, only this folder imports a network's class. To add a network, write its file (a
subclass of `Decoder`, see gpt2.py) and its line in `NETWORKS`. A line names the class as "module:Class". Myna imports
the class when it is first used, so that a command's `--help` does not wait for torch.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from myna.errors import unknown_name
from myna.model.config import GPTConfig, NanoChatConfig, NetworkConfig, VariantsConfig
from myna.settings import Options

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from myna.model.cache import KVCache
    from myna.model.matrix import Matrix


class Layout(Protocol):
    """An exporter, or our own layout. It only needs a network's names and shapes: a network on `meta` is enough."""

    def own_because(self, network: "Network") -> str | None:
        """A message that says why the files are in our own layout; None if they are in another program's layout."""

    def config_json(self, network: "Network", eot: int | None) -> dict[str, Any]:
        """The content of config.json.

        Args:
            eot: the end-of-text id; None where there is no tokenizer.
        """

    def read_config(self, raw: Mapping[str, Any], kind: "NetworkKind", where: str) -> NetworkConfig:
        """The shape that a config.json describes.

        Raises:
            ModelError: the file asks for something that the network does not do.
        """

    def to_file(self, network: "Network", state: "Mapping[str, Tensor]") -> "dict[str, np.ndarray]":
        """Our tensors (weights, or others shaped like them) under the file's names and in its layout, fp32."""

    def from_file(
        self, network: "Network", arrays: "Mapping[str, np.ndarray]", where: str
    ) -> "dict[str, Tensor]":
        """The inverse of `to_file`: our names, our layout, the vocabulary padded with zero rows.

        Raises:
            ModelError: a tensor is missing, has another shape than the config says, or is not the network's.
        """

    def check(self, network: "Network") -> None:
        """Refuses a network that computes something else than its files would say.

        Raises:
            ModelError: what differs, and what to do.
        """


class Network(Protocol):
    """Token ids in; hidden states, losses and logits out. gpt2.py explains the letters of the shapes."""

    config: NetworkConfig
    # In training, keep only each block's input, and compute its activations again in the backward pass.
    recompute: bool
    training: bool
    # The weights' device after `store_weights` has stored them; None before.
    stored_on: "torch.device | None"

    @property
    def layout(self) -> Layout:
        """How the network is written to disk."""

    @property
    def device(self) -> "torch.device":
        """Where the weights are."""

    @property
    def blocks(self) -> "nn.ModuleList":
        """The layers, first to last: compiled, recomputed and sharded one by one."""

    def hidden(
        self, ids: "Tensor", cache: "KVCache | None" = None, *, through: "Callable[..., Tensor] | None" = None
    ) -> "Tensor":
        """What the head reads: ids (B, T) int64 to (B, T, C). See `Decoder.hidden`."""

    def logits(self, hidden: "Tensor") -> "Tensor":
        """Hidden states (..., C) to logits (..., V)."""

    def nats(self, hidden: "Tensor", targets: "Tensor", *, compiled: bool = False) -> "Tensor":
        """The summed loss of targets (B, T), differentiable; a scalar."""

    def token_nats(self, hidden: "Tensor", targets: "Tensor") -> "Tensor":
        """The loss of each target by itself, without gradients: hidden (..., C), targets (...) to (...)."""

    def new_cache(
        self, rows: int, positions: int | None = None, dtype: "torch.dtype | None" = None
    ) -> "KVCache":
        """An empty cache of keys and values for this many rows."""

    @property
    def head_weight(self) -> "Tensor | Matrix":
        """(Vp, C): the head's weight. With a tied head, this is the token embedding itself."""

    def n_parameters(self) -> int:
        """Weights, without the rows that pad the vocabulary."""

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations of one trained token, forward and backward."""

    def unpadded(self, name: str, tensor: "Tensor") -> "Tensor":
        """A tensor shaped like the parameter of that name, without the rows that pad the vocabulary."""

    def padded(self, name: str, tensor: "Tensor") -> "Tensor":
        """The inverse of `unpadded`: adds rows of zeros."""

    @property
    def looked_up(self) -> tuple[str, ...]:
        """Parameters that are looked up and not multiplied."""

    @property
    def vocabulary_rows(self) -> tuple[str, ...]:
        """Parameters with a row for each id, and rows of padding. The first one is the token embedding."""

    @property
    def position_embedding(self) -> str | None:
        """The parameter with a learned vector for each position, (block_size, C); None where there is none."""

    # From torch.nn.Module:
    def parameters(self) -> "Iterator[nn.Parameter]": ...
    def named_parameters(self) -> "Iterator[tuple[str, nn.Parameter]]": ...
    def named_buffers(self) -> "Iterator[tuple[str, Tensor]]": ...
    def named_modules(self) -> "Iterator[tuple[str, nn.Module]]": ...
    def state_dict(self) -> "dict[str, Tensor]": ...
    def load_state_dict(self, state_dict: "Mapping[str, Tensor]", *, assign: bool = False) -> Any: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def to(self, device: "torch.device | str") -> Self: ...


@dataclass(frozen=True)
class NetworkKind:
    """A line of the table.

    Attributes:
        network: the class, or "module:Class"; called with a config.
        config: the class of its config.
        options: the dataclass of its own options (the flags `--network.OPTION`), or "module:Class". None: the class of
            the config's default options.
        model_type: the `model_type` in Hugging Face's config.json files that this network can load. None: the network
            has only Myna's own layout.
    """

    network: str | type
    config: type[NetworkConfig] = NetworkConfig
    options: str | type[Options] | None = None
    model_type: str | None = None

    def load(self) -> Any:
        """The class itself."""
        return _loaded(self.network)

    def options_class(self) -> type[Options]:
        """The dataclass of its options."""
        return _loaded(self.options) if self.options is not None else type(self.config().options)


def _loaded(named: Any) -> Any:
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)


NETWORKS: dict[str, NetworkKind] = {
    "gpt2": NetworkKind("myna.model.gpt2:GPT", config=GPTConfig, model_type="gpt2"),
    "nanochat": NetworkKind("myna.model.nanochat:NanoChat", config=NanoChatConfig, model_type="nanochat"),
    "variants": NetworkKind("myna.model.variants:Variants", config=VariantsConfig),
}


def network_kind(name: str) -> NetworkKind:
    """The line of that name.

    Raises:
        UsageError: no network has this name; the message lists the names.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, list(NETWORKS))
    return NETWORKS[name]


def name_in_table(network: Any) -> str | None:
    """The name of a network's class in the table; None if the class is not there."""
    kind = type(network)
    written = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, line in NETWORKS.items() if line.network in (kind, written)), None)
