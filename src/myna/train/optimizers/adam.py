"""Adam, whose decay is a part of the gradient: what AdamW was made to mend.

Source:
    Kingma and Ba 2015, arXiv:1412.6980. Its decay is divided by the root of the gradient's square like everything else
    in the gradient, so weights with large gradients hardly decay (Loshchilov and Hutter 2019, arXiv:1711.05101).
"""

from typing import TYPE_CHECKING

from myna.train.optimizers.adamw import AdamWOptions, built

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.train.optimizers.optimizer import Optimizer


class AdamOptions(AdamWOptions):
    """Adam's own numbers: those of AdamW."""


def build(network: "Network", learning_rate: float, options: AdamOptions) -> "Optimizer":
    """See `adamw.built`."""
    import torch

    return built(torch.optim.Adam, network, learning_rate, options)
