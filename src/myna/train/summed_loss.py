"""The network and its loss as one module: what DDP wraps, and what is compiled."""

import functools
import warnings
from collections.abc import Callable

import torch
import torch._functorch.config
from torch import Tensor, nn

from myna.model.decoder import run_block
from myna.model.network import Network
from myna.model.packed import Packed
from myna.settings import CompileBy


class SummedLoss(nn.Module):
    """The module whose forward pass is what DDP and the compiler see.

    `self.network` stays an ordinary module: evaluation, sampling and checkpoints use it, compiled or not.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        self.hidden: Callable[..., Tensor] = network.hidden
        self.compiled = False

    def compile_step(self, by: CompileBy = "auto", *, alone: bool = True) -> None:
        """From now on the forward and backward passes run compiled.

        Args:
            by: `block` compiles block by block, `network` the network in one piece. `auto` takes one piece on a GPU
                alone. On a CPU it takes blocks: they are as fast, and a model of any depth compiles as quickly as one
                block. Over several ranks it takes blocks too. The backward pass of one piece hands out all gradients at
                its end, and DDP could send none of them while the rest is computed. A sharded network's blocks have
                hooks, where the compiler ends a piece anyway.
            alone: one rank trains.
        """
        on_cpu = self.network.device.type == "cpu"
        if on_cpu:
            # The compiler may keep nine tenths of the activations and compute the cheapest rest again: 0.3 GB less
            # at GPT-2 124M, for a step that is as fast (docs/performance.md).
            torch._functorch.config.activation_memory_budget = 0.9
        if by == "block" or (by == "auto" and (on_cpu or not alone)):
            through = torch.compile(run_block, dynamic=False)
            # The compiler looks at its input's gradient, which between blocks is nobody's.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            self.hidden = functools.partial(self.network.hidden, through=through)
        else:
            self.hidden = torch.compile(self.network.hidden, dynamic=False)
        self.compiled = True

    def use_eager(self) -> None:
        """The plain way."""
        self.hidden = self.network.hidden
        self.compiled = False

    def forward(self, ids: Tensor, targets: Tensor, positions: Tensor | None = None) -> Tensor:
        """The summed nats of (B, T) targets, as a scalar.

        Args:
            positions: where texts share a row, see `Packed.side_by_side`.
        """
        texts = None if positions is None else Packed.side_by_side(positions)
        hidden = self.hidden(ids, texts)
        # The head's weight is read after the network ran: where it is sharded, it is whole from then on.
        return self.network.nats(hidden, targets, compiled=self.compiled)
