"""How a network computes outside training: every evaluation and every generated text goes through `evaluation_mode`."""

import contextlib
from collections.abc import Iterator

from myna.model.attention import kernels_for_any_shape
from myna.model.network import Network


@contextlib.contextmanager
def evaluation_mode(network: Network) -> Iterator[None]:
    """Inside, dropout is off, and attention takes a kernel that suits changing shapes. Afterwards all is as it was."""
    was_training = network.training
    with kernels_for_any_shape(network.device):
        if was_training:
            network.eval()
        try:
            yield
        finally:
            if was_training:
                network.train()
