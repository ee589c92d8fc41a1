"""Muon: momentum whose singular values are brought near 1, so that an update changes every direction equally much.

Source:
    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon;
    the coefficients of the iteration and the factor for tall matrices are from there.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import like, whole
from myna.train.machines.stopwatch import Timed, not_timed

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix U S V' with S near 1, after Newton and Schulz: U S' V', S' between about 0.7 and 1.2.

    Each step takes every singular value s to a s + b s^3 + c s^5. The coefficients make small values grow fastest, so
    the values end around 1 and not at it. Values that begin below a thousandth of the matrix's norm stay smaller.

    Shapes:
        matrix   (N, M)  fp32; zero stays zero
        returns  (N, M)  fp32 on a CPU; bf16 on CUDA, whose products are fast in it
    """
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # the product below is of the short side
    # The mean loss makes gradients that may be tiny: only zero is kept from dividing by zero.
    x = x / x.norm().clamp(min=1e-30)
    if x.device.type == "cuda":
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """The update of matrices.

    Every rank keeps the momentum of every matrix (of a sharded one its part), so any rank's checkpoint is whole. The
    costly part is shared out: in each round every rank orthogonalises one matrix and sends it to the others.

    Args:
        lr, momentum, weight_decay: a learning rate of 1 changes a square matrix by an orthogonal one.
        steps: of the iteration.
    """

    def __init__(
        self, matrices: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float, steps: int
    ):
        # Neighbours in a round are of one size, so that no rank waits for another.
        by_size = sorted(matrices, key=lambda matrix: matrix.numel(), reverse=True)
        super().__init__(
            by_size, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        )
        self._ranks: Ranks | None = None
        self._timed: Timed = not_timed

    def share_out(self, ranks: Ranks) -> None:
        """From now on, each of some ranks that have equal gradients does its share."""
        self._ranks = ranks if ranks.world_size > 1 else None

    def watch(self, timed: Timed) -> None:
        """From now on what the iteration costs is timed as `orthogonalisation`, sending to other ranks included."""
        self._timed = timed

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update. Every rank goes through all matrices, with a gradient or without, so that none waits in vain."""
        for group in self.param_groups:
            matrices = group["params"]
            at_once = self._ranks.world_size if self._ranks else 1
            for start in range(0, len(matrices), at_once):
                some = matrices[start : start + at_once]
                updates = [self._direction(matrix, group["momentum"]) for matrix in some]
                with self._timed("orthogonalisation"):
                    self._orthogonalise(updates, group["steps"])
                for matrix, update in zip(some, updates, strict=True):
                    taller = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(like(update.to(torch.float32), matrix), alpha=-group["lr"] * taller)

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        """Takes the gradient into the mean, and looks one step ahead. Whole, also where the matrix is sharded."""
        gradient = torch.zeros_like(matrix) if matrix.grad is None else matrix.grad
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        mean = state["momentum"].lerp_(gradient, 1 - momentum)
        return whole(gradient.lerp(mean, momentum))

    def _orthogonalise(self, updates: list[Tensor], steps: int) -> None:
        """Replaces a round's matrices: number i by rank i, or all of them where there is one rank."""
        if self._ranks is None:
            updates[:] = [orthogonalised(update, steps) for update in updates]
            return
        for number, update in enumerate(updates):
            if number == self._ranks.rank:
                update.copy_(orthogonalised(update, steps))
        for number, update in enumerate(updates):
            self._ranks.from_rank(number, update)
