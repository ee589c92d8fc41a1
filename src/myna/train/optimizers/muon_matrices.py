"""Muon brings the momentum's singular values near 1, so that an update changes all directions about equally.

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


def orthogonalised(matrix: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Brings a matrix's singular values near 1, by Newton and Schulz's iteration: U S V^T becomes U R V^T.

    The values in R are between about 0.7 and 1.2, but those that began very small may be smaller: after 5 steps, a
    value that began below a thousandth of the matrix's Frobenius norm is still below 0.5. Each step replaces every
    singular value s by a s + b s^3 + c s^5. The coefficients make small values grow fast; the price is that values end
    near 1, not at 1.

    Shapes:
        matrix   (N, M)  fp32; zero stays zero
        returns  (N, M)  in `dtype`, in which the products are computed too
    """
    a, b, c = COEFFICIENTS
    # With the short side first, the product x @ x.T below is small.
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    # Gradients of a mean loss may be tiny, so this bound is tiny too. It only keeps a zero matrix from 0 / 0.
    x = x / x.norm().clamp(min=1e-30)
    x = x.to(dtype)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Updates matrices.

    Every rank keeps the momentum of every matrix, so any rank can write a whole checkpoint. If a network is sharded, a
    rank keeps only its part of each momentum. The ranks share the costly work: in each round every rank orthogonalises
    one matrix and sends it to the others.

    Args:
        lr: with lr 1, an update changes a square matrix by a nearly orthogonal one.
        momentum: the share of the gradient's running mean that a step keeps.
        weight_decay: a step multiplies a matrix by 1 - lr * weight_decay.
        steps: how many steps of the iteration an update takes.
    """

    def __init__(
        self, matrices: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float, steps: int
    ):
        # Sorted by size, the matrices of a round are about equally large, so no rank waits long for another.
        by_size = sorted(matrices, key=lambda matrix: matrix.numel(), reverse=True)
        super().__init__(
            by_size, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        )
        self._ranks: Ranks | None = None
        self._timed: Timed = not_timed
        self._dtype = torch.float32

    def use_product_dtype(self, dtype: torch.dtype | None) -> None:
        """From now on the iteration runs in bf16 if the network's products do. On CUDA it always runs in bf16.

        On a CPU with instructions for bf16 this makes it three to four times as fast. The singular values end only near
        1 in any case; bf16 moves them by 0.006 at most.
        """
        in_bf16 = dtype == torch.bfloat16 or self.param_groups[0]["params"][0].device.type == "cuda"
        self._dtype = torch.bfloat16 if in_bf16 else torch.float32

    def share_out(self, ranks: Ranks) -> None:
        """From now on, these ranks share the work. Their gradients must be equal."""
        self._ranks = ranks if ranks.world_size > 1 else None

    def watch(self, timed: Timed) -> None:
        """From now on, `timed` measures the iteration, under the name `orthogonalisation`.

        The time to send a result to the other ranks counts too.
        """
        self._timed = timed

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update. Every rank goes through all matrices, even those without a gradient, so no rank waits forever."""
        for group in self.param_groups:
            matrices = group["params"]
            at_once = self._ranks.world_size if self._ranks else 1
            for start in range(0, len(matrices), at_once):
                some = matrices[start : start + at_once]
                updates = [self._direction(matrix, group["momentum"]) for matrix in some]
                with self._timed("orthogonalisation"):
                    self._orthogonalise(updates, group["steps"])
                for matrix, update in zip(some, updates, strict=True):
                    # The factor for tall matrices, see Source.
                    tall_factor = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(like(update.to(torch.float32), matrix), alpha=-group["lr"] * tall_factor)

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        """Adds the gradient to its running mean; returns the mean one step ahead (Nesterov), whole even if sharded."""
        gradient = torch.zeros_like(matrix) if matrix.grad is None else matrix.grad
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        mean = state["momentum"].lerp_(gradient, 1 - momentum)
        return whole(gradient.lerp(mean, momentum))

    def _orthogonalise(self, updates: list[Tensor], steps: int) -> None:
        """Orthogonalises a round's matrices in place. Rank i does number i; a single rank does all."""
        if self._ranks is None:
            updates[:] = [orthogonalised(update, steps, self._dtype) for update in updates]
            return
        for number, update in enumerate(updates):
            if number == self._ranks.rank:
                update.copy_(orthogonalised(update, steps, self._dtype))
        for number, update in enumerate(updates):
            self._ranks.from_rank(number, update)
