"""Stochastic gradient descent with momentum: one rate for every weight, whatever the size of its gradient."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.settings import AT_LEAST_0, BELOW_1, Options, setting
from myna.train.optimizers.decay import Decays, decay_groups

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.train.optimizers.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class SGDOptions(Options):
    """Numbers of SGD. Its learning rate is another one than AdamW's: 0.1 to 1 is usual."""

    momentum: float = setting(0.9, BELOW_1)
    """The share of the last update's direction that stays in the next (Polyak 1964); 0 for none."""
    weight_decay: float = setting(0.0, AT_LEAST_0)
    """Added to the gradient, in units of the weight."""
    decays: Decays = "matrices"
    """What decays: matrices, with the embeddings; or all, norms and biases too."""


def build(network: "Network", learning_rate: float, options: SGDOptions) -> "Optimizer":
    """Keeps one tensor for each parameter, or none without momentum."""
    import torch

    from myna.train.optimizers.optimizer import Optimizer, Part

    sgd = torch.optim.SGD(
        decay_groups(network, options.weight_decay, options.decays),
        lr=learning_rate,
        momentum=options.momentum,
        fused=network.device.type in ("cpu", "cuda", "mps"),
    )
    return Optimizer(network, [Part(sgd, kinds=("momentum_buffer",) if options.momentum else ())])
