"""An optimizer as training knows it: its groups and learning rates, its state by name, the memory it takes.

Underneath are one or several of torch's own, each for its share of the parameters.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from myna.errors import CheckpointError, ModelError
from myna.model.network import Network
from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import like, local
from myna.train.machines.stopwatch import Timed, not_timed


@dataclass(frozen=True)
class Part:
    """One of torch's optimizers.

    Attributes:
        kinds: the names of the tensors, shaped like the parameter, that it keeps for each of its parameters.
        counters: the names of the single numbers that it keeps for each.
        share_out: told the ranks, whose gradients are equal, where they can share the work of an update.
        watch: told what times a stage of an update, where one is worth a time of its own.
        use_product_dtype: told the dtype of the network's matrix products (None: fp32), if an update has products too.
    """

    optimizer: torch.optim.Optimizer
    kinds: tuple[str, ...]
    counters: tuple[str, ...] = ()
    share_out: Callable[[Ranks], None] | None = None
    watch: Callable[[Timed], None] | None = None
    use_product_dtype: Callable[[torch.dtype | None], None] | None = None


class Optimizer:
    """The optimizer of a network.

    A parameter group may have a `factor` (1 where it has none): its learning rate is that many times the recipe's.

    Args:
        network: whose parameters all belong to exactly one part.
    """

    def __init__(self, network: Network, parts: Sequence[Part]):
        self.network, self.parts = network, tuple(parts)
        self._timed: Timed = not_timed
        self._names = {parameter: name for name, parameter in network.named_parameters()}
        mine = [parameter for part in self.parts for parameter in _parameters(part)]
        for parameter, name in self._names.items():
            if (times := sum(parameter is one for one in mine)) != 1:
                raise ModelError(
                    f"the optimizer has the parameter {name} {times} times; each belongs to one part"
                )

    def share_out(self, ranks: Ranks) -> None:
        """From now on the ranks share the work of an update, where a part knows how. All of them step together."""
        for part in self.parts:
            if part.share_out is not None:
                part.share_out(ranks)

    def watch(self, timed: Timed) -> None:
        """From now on each update is timed as `optimizer`, and stages of it by names of their own."""
        self._timed = timed
        for part in self.parts:
            if part.watch is not None:
                part.watch(timed)

    def use_product_dtype(self, dtype: torch.dtype | None) -> None:
        """Tells the parts what autocast casts the network's products to; None for no autocast."""
        for part in self.parts:
            if part.use_product_dtype is not None:
                part.use_product_dtype(dtype)

    def set_learning_rate(self, rate: float) -> None:
        """The recipe's learning rate for the next step."""
        for part in self.parts:
            for group in part.optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)

    @property
    def skips_on_device(self) -> bool:
        """Whether `step` takes a divisor and a skip: torch's fused kernels do."""
        # Torch's own mark of these kernels, by which its GradScaler knows them too.
        return all(getattr(part.optimizer, "_step_supports_amp_scaling", False) for part in self.parts)

    def step(self, *, divisor: Tensor | None = None, skip: Tensor | None = None) -> None:
        """One update from the gradients, which must be finite unless `skip` says that they are not.

        Args:
            divisor: () float32 on the device; the gradients are divided by it.
            skip: () float32 on the device; where it is 1, weights and counters stay as they are.
        """
        with self._timed("optimizer"):
            for part in self.parts:
                inner: Any = part.optimizer
                if skip is None:
                    inner.step()
                    continue
                inner.grad_scale, inner.found_inf = divisor, skip
                try:
                    inner.step()
                finally:
                    del inner.grad_scale, inner.found_inf

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        """Divides the gradients by fp16's scale."""
        for part in self.parts:
            scaler.unscale_(part.optimizer)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for part in self.parts:
            part.optimizer.zero_grad(set_to_none=True)

    def memory_bytes(self) -> int:
        """What its state takes on this rank once it has made a step; of a sharded network this rank's share."""
        return sum(
            len(part.kinds) * local(parameter).numel() * 4
            for part in self.parts
            for parameter in _parameters(part)
        )

    def has_state(self) -> bool:
        """Whether it has made a step, or has a checkpoint's state."""
        return any(part.optimizer.state for part in self.parts)

    def forget(self) -> None:
        """Forgets the gradients and its state, as if it had made no step."""
        self.zero_grad()
        for part in self.parts:
            part.optimizer.state.clear()

    def named_state(self) -> dict[str, Tensor]:
        """Its tensors as KIND.PARAMETER, for a checkpoint: this rank's parts. Empty before the first step.

        The order is that of the parameters, whatever order a checkpoint was loaded in: equal states are equal files.
        """
        return {
            f"{kind}.{self._names[parameter]}": tensor
            for part in self.parts
            for parameter in _parameters(part)
            for kind, tensor in sorted(part.optimizer.state.get(parameter, {}).items())
            if isinstance(tensor, Tensor)
        }

    def load_named_state(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Puts the tensors of a checkpoint back: whole ones, present on every rank.

        Raises:
            CheckpointError: a tensor is missing, belongs to no parameter, or has another shape.
        """
        rest = dict(tensors)
        for part in self.parts:
            state = {}
            for number, parameter in enumerate(_parameters(part)):
                name = self._names[parameter]
                found = {
                    key.partition(".")[0]: rest.pop(key)
                    for key in list(rest)
                    if key.partition(".")[2] == name
                }
                self._check(part, name, parameter, found, where)
                state[number] = {
                    kind: like(tensor, parameter) if tensor.shape == parameter.shape else tensor
                    for kind, tensor in found.items()
                }
            groups = part.optimizer.state_dict()["param_groups"]
            part.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if rest:
            raise CheckpointError(
                f"{where}: {min(rest)!r} is not of this network and optimizer; use another checkpoint"
            )

    def _check(
        self, part: Part, name: str, parameter: Tensor, found: Mapping[str, Tensor], where: str
    ) -> None:
        shapes = dict.fromkeys(part.kinds, parameter.shape) | dict.fromkeys(part.counters, torch.Size())
        for kind, shape in shapes.items():
            if kind not in found:
                raise CheckpointError(
                    f"{where} lacks the optimizer's {kind} of {name}; use another checkpoint"
                )
            if found[kind].shape != shape:
                raise CheckpointError(
                    f"{where}: {kind}.{name} has shape {tuple(found[kind].shape)}, where {tuple(shape)} is needed; "
                    "use another checkpoint"
                )


def _parameters(part: Part) -> Iterator[Any]:
    return (parameter for group in part.optimizer.param_groups for parameter in group["params"])
