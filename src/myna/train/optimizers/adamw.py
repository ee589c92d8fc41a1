"""AdamW with GPT-3's numbers. By default only matrices decay, and not through the gradient (arXiv:1711.05101)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.settings import ABOVE_0, AT_LEAST_0, BELOW_1, Options, setting
from myna.train.optimizers.decay import Decays, decay_groups

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.train.optimizers.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class AdamWOptions(Options):
    """The options of --optimizer adamw and adam."""

    weight_decay: float = setting(0.1, AT_LEAST_0)
    """Weight decay. Each step of adamw multiplies the weights by 1 - learning rate * this [2]. adam adds this * weights
    to the gradient instead."""
    decays: Decays = "matrices"
    """Which weights decay: matrices, embeddings included (as in build-nanogpt); or all, also norms and biases."""
    beta1: float = setting(0.9, BELOW_1)
    """Decay of the running mean of the gradient [2]."""
    beta2: float = setting(0.95, BELOW_1)
    """Decay of the running mean of the squared gradient [2]."""
    epsilon: float = setting(1e-8, ABOVE_0)
    """Added to the root of the squared gradient's mean, against division by zero [2]."""


def build(network: "Network", learning_rate: float, options: AdamWOptions) -> "Optimizer":
    """See `build_adam_like`."""
    import torch

    return build_adam_like(torch.optim.AdamW, network, learning_rate, options)


def build_adam_like(
    kind: Any, network: "Network", learning_rate: float, options: AdamWOptions
) -> "Optimizer":
    """An `Optimizer` around `kind`: torch's AdamW, or its Adam, which takes the same numbers.

    Fused where torch can, on CPU, CUDA and MPS: one call updates all parameters.
    """
    from myna.train.optimizers.optimizer import Optimizer, Part

    inner = kind(
        decay_groups(network, options.weight_decay, options.decays),
        lr=learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        fused=network.device.type in ("cpu", "cuda", "mps"),
    )
    return Optimizer(network, [Part(inner, kinds=("exp_avg", "exp_avg_sq"), counters=("step",))])
