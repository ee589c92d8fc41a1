"""Adam, whose decay is a part of the gradient: what AdamW was made to mend.

Source:
    Kingma and Ba 2015, arXiv:1412.6980. Its decay is divided by the root of the gradient's square like everything else
    in the gradient, so weights with large gradients hardly decay (Loshchilov and Hutter 2019, arXiv:1711.05101).
"""

from typing import TYPE_CHECKING

from myna.train.optimizers.adamw import AdamWOptions
from myna.train.optimizers.decay import decay_groups

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.train.optimizers.optimizer import Optimizer


class AdamOptions(AdamWOptions):
    """Adam's own numbers: those of AdamW."""


def build(network: "Network", learning_rate: float, options: AdamOptions) -> "Optimizer":
    """Fused, as AdamW is."""
    import torch

    from myna.train.optimizers.optimizer import Optimizer, Part

    adam = torch.optim.Adam(
        decay_groups(network, options.weight_decay, options.decays),
        lr=learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        fused=network.device.type in ("cpu", "cuda", "mps"),
    )
    return Optimizer(network, [Part(adam, kinds=("exp_avg", "exp_avg_sq"), counters=("step",))])
