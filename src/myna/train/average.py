"""The mean of the weights over the last steps: what training has learned, with less of each batch's noise.

While the learning rate is high the weights swing around the path they are on. Their mean lies near it, as if the
learning rate had come down already; the steps themselves are not changed.

Source:
    Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; as an exponential moving
    average, Kingma and Ba 2015, arXiv:1412.6980, section 7.2.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from myna.model.network import Network


class WeightAverage:
    """An exponential moving average of a network's weights, sharded as they are.

    Args:
        decay: the share that a step leaves of the average, from 0 up to, not including, 1.
    """

    def __init__(self, network: Network, decay: float):
        self.network, self.decay = network, decay
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in network.named_parameters()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights in.

        Args:
            step: updates made so far. Early on the average reaches back over a sixteenth of them, not to the beginning.
        """
        decay = min(self.decay, step / (step + 15))
        torch._foreach_lerp_(list(self.values.values()), list(self.network.parameters()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the network has the average for its weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.network.named_parameters():
            weight = parameter.clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(weight)
