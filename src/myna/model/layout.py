"""How a network stands on the disk: the names and shapes of its tensors, and its config.json.

A network has one layout. One that transformers knows has an exporter, which writes and reads transformers' own layout.
Every other is kept in ours: the parameters under their own names, and a config.json whose `model_type` is `myna-NAME`.
Myna loads that; transformers refuses it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from myna.errors import ModelError, UsageError
from myna.model.config import NetworkConfig
from myna.model.network import Network, NetworkKind, name_in_table
from myna.settings import read_options

OWN_PREFIX = "myna-"
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout")


def as_float32(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers on the CPU."""
    return tensor.detach().to("cpu", torch.float32).numpy()


def taken(name: str, tensor: Tensor, network: Network, expected: Mapping[str, Tensor], where: str) -> Tensor:
    """A tensor from a file, padded, after its name and shape were checked.

    Raises:
        ModelError: there is no such parameter, or it has another shape.
    """
    if name not in expected:
        raise ModelError(f"{where}: the network has no tensor {name!r}; is this another model?")
    on_disk = network.unpadded(name, expected[name]).shape
    if tensor.shape != on_disk:
        raise ModelError(
            f"{where}: tensor {name!r} has shape {tuple(tensor.shape)}, and the config leads to "
            f"{tuple(on_disk)}; is this another model's config?"
        )
    return network.padded(name, tensor)


def shape_of(kind: NetworkKind, where: str, **values: Any) -> NetworkConfig:
    """A network's shape from the values of a config.json.

    Raises:
        ModelError: a value that cannot be; names the file.
    """
    try:
        return kind.config(**values)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error


def require_all(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """
    Raises:
        ModelError: a tensor is missing.
    """
    if missing := expected.keys() - found.keys():
        raise ModelError(
            f"{where}: {len(missing)} tensors are missing, {min(missing)!r} among them; is the file whole?"
        )


class OwnLayout:
    """Any network, as it is."""

    exports_to: str | None = None

    def config_json(self, network: Network, eot: int | None) -> dict[str, Any]:
        config = network.config
        return {
            "model_type": OWN_PREFIX + self._name(network),
            "architectures": [type(network).__name__],
            **{name: getattr(config, name) for name in SIZES},
            "options": dataclasses.asdict(config.options),
            "bos_token_id": eot,
            "eos_token_id": eot,
            "torch_dtype": "float32",
        }

    def read_config(self, raw: Mapping[str, Any], kind: NetworkKind, where: str) -> NetworkConfig:
        try:
            options = read_options(kind.options_class(), raw["options"])
            return shape_of(kind, where, **{name: raw[name] for name in SIZES}, options=options)
        except (KeyError, TypeError, UsageError) as error:
            raise ModelError(f"{where}: {error}; the network's options may have changed since") from error

    def to_file(self, network: Network, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: as_float32(network.unpadded(name, tensor)) for name, tensor in state.items()}

    def from_file(self, network: Network, arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Tensor]:
        expected = dict(network.named_parameters())
        state = {
            name: taken(name, torch.from_numpy(np.array(array, np.float32)), network, expected, where)
            for name, array in arrays.items()
        }
        require_all(state, expected, where)
        return state

    def check(self, network: Network) -> None:
        self._name(network)

    def _name(self, network: Network) -> str:
        name = name_in_table(network)
        if name is None:
            raise ModelError(
                f"the network {type(network).__name__} is not in the table NETWORKS of myna.model.network, so nothing "
                "could load its files again; add it there"
            )
        return name
