"""How a network stands on the disk: the names and shapes of its tensors, and its config.json.

A network has one layout. One that transformers knows has an exporter, which writes and reads transformers' own layout.
Every other is kept in ours: the parameters under their own names, and a config.json whose `model_type` is `myna-NAME`.
Myna loads that; transformers refuses it.
"""

import dataclasses
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from myna.errors import ModelError, UsageError
from myna.model.config import NetworkConfig
from myna.model.network import Network, NetworkKind, name_in_table
from myna.settings import read_options

OWN_PREFIX = "myna-"
# Keys of any config.json of transformers', each of which changes what it computes, or which weights it reads.
CHANGES_WHAT_IS_COMPUTED = (
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
)
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


def require_values(
    raw: Mapping[str, Any], computed: Mapping[str, tuple[Any, ...]], what: str, where: str
) -> None:
    """Refuses a config.json that asks for another function.

    Args:
        computed: for each key, first what its absence means, then what else computes the same.
        what: the network, for people.
    Raises:
        ModelError: names the key.
    """
    for key, values in computed.items():
        value = raw.get(key, values[0])
        if not any(equal(value, one) for one in values):
            known = " or ".join(map(repr, values))
            raise ModelError(f"{where}: {key} is {shown(value)}; this network computes {what} with {known}")


def equal(value: Any, known: Any) -> bool:
    """Equal, and of one type: in JSON `1` is not `true`, and `"3"` and `3.0` are no whole numbers."""
    return type(value) is type(known) and bool(value == known)


def shown(value: Any) -> str:
    """A value from a JSON file, short enough for a line."""
    return reprlib.repr(value)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers; a NaN is the same as a NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def require_formula(
    network: Network, formula: Callable[[Mapping[str, Tensor], Tensor, NetworkConfig], Tensor], whose: str
) -> None:
    """Compares a tiny network of this class with a formula, and the network's parts with a new one's.

    So it finds a changed class (another activation or norm) and a changed instance (a part that was replaced).

    Args:
        formula: (weights by name, ids, shape) to logits.
        whose: layout, for people.
    Raises:
        ModelError: it computes something else.
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
            expected = formula(dict(example.named_parameters()), ids, tiny)
            difference = float((example(ids) - expected).abs().max())
    changed = _changed_part(network)
    if not difference < 1e-9 or changed:
        what = f"{changed} was changed" if changed else f"its logits differ by {difference:.2g}"
        raise ModelError(
            f"the network {type(network).__name__} does not compute {whose.split()[-1]} any more ({what}), so files in "
            f"{whose} layout would load as another model; give it a line of its own in NETWORKS, and "
            "`layout = OwnLayout()`"
        )


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
    constants = [
        name for name in theirs if name[0] != "_" and name not in ("training", "recompute", "stored_on")
    ]
    return (
        type(part) is not type(new)
        or any(name not in mine or mine[name] != theirs[name] for name in constants)
        or any(callable(mine[name]) for name in mine.keys() - theirs.keys())  # put over a method
    )


class OwnLayout:
    """Any network, as it is."""

    def own_because(self, network: Network) -> str | None:
        return f"no other program has the network {type(network).__name__}"

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
