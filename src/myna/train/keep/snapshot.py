"""A step as it will be saved: copies of all its tensors, taken at once, that nothing else writes to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from myna.model.network import Network
from myna.train.average import WeightAverage
from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import whole
from myna.train.optimizers.optimizer import Optimizer
from myna.train.state import TrainState

# The kind of tensor, beside the optimizer's, that holds the weights where what is saved as the model is their average.
WEIGHTS = "weights"


class Buffers:
    """Memory of the host that snapshots are copied into, kept from one to the next; pinned for a GPU's copies."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, key: str, tensor: Tensor) -> Tensor:
        """A copy of a tensor under a key. From a GPU it is under way: `wait` before reading it."""
        tensor = tensor.detach()
        if key not in self._held:
            self._held[key] = torch.empty(
                tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
            )
        self._held[key].copy_(tensor, non_blocking=tensor.device.type == "cuda")
        if tensor.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()
        return self._held[key]

    def wait(self) -> None:
        """Until every copy so far is there."""
        if self._copied is not None:
            self._copied.synchronize()


@dataclass(frozen=True)
class Snapshot:
    """A step.

    Attributes:
        weights: what is saved as the model, by parameter name.
        tensors: the optimizer's state, and the weights where `weights` is their average; KIND.PARAMETER.
    """

    state: TrainState
    weights: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    wait: Callable[[], None] = lambda: None  # returns when the copies are complete


class Camera:
    """Takes snapshots of a network and its optimizer. Every rank takes part; the main rank's snapshot counts."""

    def __init__(self, network: Network, optimizer: Optimizer, average: WeightAverage | None, ranks: Ranks):
        self.network, self.optimizer, self.average, self.ranks = network, optimizer, average, ranks
        self.buffers = Buffers()

    def take(self, state: TrainState) -> Snapshot:
        """Copies the step that `state` describes. The copies are complete before the next update changes a weight."""
        saved, tensors = self.network.state_dict(), self.optimizer.named_state()
        if self.average is not None:
            tensors |= {f"{WEIGHTS}.{name}": tensor for name, tensor in saved.items()}
            saved = self.average.values
        return Snapshot(
            replace(state),
            {name: self._copy(name, name, tensor) for name, tensor in saved.items()},
            {key: self._copy(f"state {key}", key.partition(".")[2], t) for key, t in tensors.items()},
            self.buffers.wait,
        )

    def _copy(self, key: str, name: str, tensor: Tensor) -> Tensor:
        tensor = self.network.unpadded(name, whole(tensor))
        return self.buffers.take(key, tensor) if self.ranks.is_main else tensor
