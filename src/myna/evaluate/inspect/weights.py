"""A model's tensors: their shapes and shares, which are tied; a layer's; how smooth its position embeddings are."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from myna.errors import CheckpointError, ModelError
from myna.model.checkpoint import checkpoint_step, verify
from myna.model.network import Network
from myna.model.weights import load_network

MOST_CHECKPOINTS = 40  # of a run are looked at: evenly many, with the first and the last


@dataclass(frozen=True)
class TensorRow:
    """A tensor, or the tensors of that name in every layer.

    Attributes:
        name: "N" stands for the number of the layer.
        count: how many there are.
        shape: of one, without the rows that pad the vocabulary.
        parameters: of all of them together.
        share: of all of the model's parameters.
        is_head: whether it is the head: what hidden states are multiplied with to give logits.
        is_tied: whether it is the head and the token embedding.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    parameters: int
    share: float
    is_head: bool
    is_tied: bool


def tensor_table(network: Network) -> list[TensorRow]:
    """A network's tensors, in its own order; those that differ in the layer's number alone share a row."""
    prefix, head = _layers_prefix(network), network.head_weight
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    heads: set[str] = set()
    for name, parameter in network.named_parameters():
        general = re.sub(rf"^{re.escape(prefix)}\.\d+\.", f"{prefix}.N.", name)
        groups.setdefault((general, tuple(network.unpadded(name, parameter).shape)), []).append(name)
        if parameter is head:
            heads.add(general)
    total = network.n_parameters()
    rows = []
    for (general, shape), names in groups.items():
        parameters = len(names) * int(np.prod(shape, dtype=np.int64))
        is_head = general in heads
        is_tied = is_head and general == network.vocabulary_rows[0]
        rows.append(TensorRow(general, len(names), shape, parameters, parameters / total, is_head, is_tied))
    return rows


def layer_tensors(network: Network, layer: int) -> dict[str, Tensor]:
    """A layer's tensors by their names within it.

    Raises:
        ModelError: there is no such layer.
    """
    check_layer(network, layer)
    return {name: parameter.detach() for name, parameter in network.blocks[layer].named_parameters()}


def check_layer(network: Network, layer: int) -> None:
    """
    Raises:
        ModelError: there is no such layer.
    """
    n_layer = len(network.blocks)
    if not 0 <= layer < n_layer:
        raise ModelError(f"there is no layer {layer}; the model has {n_layer}: give 0 to {n_layer - 1}")


def check_finite(network: Network) -> None:
    """
    Raises:
        ModelError: names the first tensor with a NaN or an infinity.
    """
    for name, parameter in network.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ModelError(
                f"{name} holds a NaN or an infinity: the weights are damaged, or training diverged; look at an earlier "
                "checkpoint"
            )


def _layers_prefix(network: Network) -> str:
    """The name of `network.blocks` among its modules."""
    return next(name for name, module in network.named_modules() if module is network.blocks)


def positions_of(network: Network) -> Tensor | None:
    """(T, C): the learned vector of each position; None where the network has none."""
    name = network.position_embedding
    return None if name is None else dict(network.named_parameters())[name].detach()


def roughness(positions: np.ndarray) -> np.ndarray:
    """How much neighbours differ in each channel: 1 for noise, near 0 for a smooth curve.

    Half the mean squared difference of neighbouring positions, divided by the channel's variance: von Neumann's ratio,
    halved. A channel that is constant has none, and is left out.

    Shapes:
        positions  (T, C)  T is 2 or more
        returns    (at most C,)
    Source:
        von Neumann 1941, "Distribution of the ratio of the mean square successive difference to the variance".

    >>> roughness(np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])).tolist()
    [2.0]
    """
    positions = positions.astype(np.float64)
    variance = positions.var(axis=0)
    varies = variance > 0
    steps = np.square(np.diff(positions, axis=0)).mean(axis=0)
    return steps[varies] / (2 * variance[varies])


@dataclass(frozen=True)
class Smoothness:
    """One checkpoint's position embeddings.

    Attributes:
        step: finished updates; None for a model that is no checkpoint of a run.
        low, median, high: the 10th, 50th and 90th percentile of the channels' roughness.
        positions: (T, C) the positions that were measured.
    """

    step: int | None
    low: float
    median: float
    high: float
    positions: np.ndarray


def smoothness(network: Network, step: int | None, trained: int | None) -> Smoothness | None:
    """How smooth a network's position embeddings are; None where it has none, or none that vary.

    Args:
        trained: positions that training used, which may be fewer than the model has; None for all.
    """
    found = positions_of(network)
    if found is None:
        return None
    positions = found[:trained].cpu().numpy()
    rough = roughness(positions) if len(positions) > 1 else np.empty(0)
    if not len(rough):
        return None
    low, median, high = np.percentile(rough, [10, 50, 90])
    return Smoothness(step, float(low), float(median), float(high), positions)


def smoothness_of_run(
    checkpoints: Iterable[Path], trained: int | None, skipped: list[str]
) -> Iterator[Smoothness]:
    """The same for checkpoints, one by one.

    Args:
        skipped: gets a line for each that is damaged.
    """
    for path in checkpoints:
        try:
            verify(path)
            network = load_network(path)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        if (found := smoothness(network, checkpoint_step(path), trained)) is not None:
            yield found


def evenly(paths: list[Path]) -> list[Path]:
    """At most `MOST_CHECKPOINTS` of some paths, evenly spread, with the first and the last.

    >>> [path.name for path in evenly([Path(str(n)) for n in range(79)])][:3]
    ['0', '2', '4']
    """
    if len(paths) <= MOST_CHECKPOINTS:
        return paths
    at = np.linspace(0, len(paths) - 1, MOST_CHECKPOINTS).round().astype(int)
    return [paths[i] for i in at]
