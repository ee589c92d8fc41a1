"""What the other rooms know of a network: a protocol, and the table of networks by name.

Nobody outside this room imports a network itself. To add one: write its file (a subclass of `Decoder`, see gpt2.py),
and its line in `NETWORKS`. A line names its class as "module:Class", and the class is imported when first used: so a
command's `--help` does not wait for torch.
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
    """An exporter, or our own layout. It reads a network's names and shapes; one without memory (`meta`) will do."""

    def own_because(self, network: "Network") -> str | None:
        """Why the network's files are in our own layout, for people; None where they are in another program's."""

    def config_json(self, network: "Network", eot: int | None) -> dict[str, Any]:
        """The content of config.json.

        Args:
            eot: the end-of-text id; None where there is no tokenizer.
        """

    def read_config(self, raw: Mapping[str, Any], kind: "NetworkKind", where: str) -> NetworkConfig:
        """The shape that a config.json describes.

        Raises:
            ModelError: it asks for something that the network does not do.
        """

    def to_file(self, network: "Network", state: "Mapping[str, Tensor]") -> "dict[str, np.ndarray]":
        """Our tensors (weights, or others shaped like them) under the file's names and in its layout, fp32."""

    def from_file(
        self, network: "Network", arrays: "Mapping[str, np.ndarray]", where: str
    ) -> "dict[str, Tensor]":
        """The inverse: our names, our layout, the vocabulary padded with zero rows.

        Raises:
            ModelError: a tensor is missing, has another shape than the config says, or is not the network's.
        """

    def check(self, network: "Network") -> None:
        """Refuses a network whose files would not tell the truth about it.

        Raises:
            ModelError: what differs, and what to do.
        """


class Network(Protocol):
    """Token ids in; hidden states, losses and logits out. Letters of the shapes: see gpt2.py."""

    config: NetworkConfig
    recompute: (
        bool  # in training, keep only the blocks' inputs, and compute the rest again in the backward pass
    )
    training: bool
    stored_on: "torch.device | None"  # where the weights are once `store_weights` has stored them

    @property
    def layout(self) -> Layout:
        """How it stands on the disk."""

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
        """An empty cache of keys and values for so many rows."""

    @property
    def head_weight(self) -> "Tensor | Matrix":
        """(Vp, C): hidden states times this are the logits. Tied networks give the token embedding itself."""

    def n_parameters(self) -> int:
        """Weights, without the rows that pad the vocabulary."""

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations of one trained token, forward and backward."""

    def unpadded(self, name: str, tensor: "Tensor") -> "Tensor":
        """A tensor shaped like the parameter of that name, without the rows that pad the vocabulary."""

    def padded(self, name: str, tensor: "Tensor") -> "Tensor":
        """The inverse of `unpadded`: with rows of zeros."""

    @property
    def looked_up(self) -> tuple[str, ...]:
        """Parameters that are looked up and not multiplied."""

    @property
    def vocabulary_rows(self) -> tuple[str, ...]:
        """Parameters with a row for each id, padded. The first is the token embedding: what ids are looked up in."""

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
        config: the class of its shape.
        options: the dataclass of its own options, or "module:Class"; flags `--network.OPTION`. None: of the kind that
            the config has by default.
        model_type: in a config.json of Hugging Face's that this network can load. None: it has only Myna's own layout.
    """

    network: str | type
    config: type[NetworkConfig] = NetworkConfig
    options: str | type[Options] | None = None
    model_type: str | None = None

    def load(self) -> Any:
        """The class itself."""
        return _loaded(self.network)

    def options_class(self) -> type[Options]:
        """The dataclass of its options itself."""
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
        UsageError: there is none; names those there are.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, list(NETWORKS))
    return NETWORKS[name]


def name_in_table(network: Any) -> str | None:
    """The name under which a network's class stands in the table; None where it does not."""
    kind = type(network)
    written = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, line in NETWORKS.items() if line.network in (kind, written)), None)
