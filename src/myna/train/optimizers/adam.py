"""Adam, whose decay is a part of the gradient: what AdamW was made to mend.

Source:
    Kingma and Ba 2015, arXiv:1412.6980. Its decay is divided by the root of the gradient's square like everything else
    in the gradient, so weights with large gradients hardly decay (Loshchilov and Hutter 2019, arXiv:1711.05101).
"""

from typing import TYPE_CHECKING

from myna.train.optimizers.adamw import AdamWOptions, build_adam_like

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.train.optimizers.optimizer import Optimizer


class AdamOptions(AdamWOptions):
    """The options of --optimizer adam: those of adamw."""


def build(network: "Network", learning_rate: float, options: AdamOptions) -> "Optimizer":
    """See `adamw.build_adam_like`."""
    import torch

    return build_adam_like(torch.optim.Adam, network, learning_rate, options)
