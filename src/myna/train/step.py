"""One optimizer step: micro-batches in, one update out.

The loss is a sum over tokens divided by the tokens of the global batch, so the step is the same mathematics for
any micro-batch and any number of ranks: gradients of parts add up to the gradient of the whole.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from myna.errors import DivergedError
from myna.model.gpt2 import GPT
from myna.model.loss import head_nats
from myna.train.ranks import Precision, Ranks

Batch = tuple[Tensor, Tensor]


class SummedLoss(nn.Module):
    """The network and its loss as one module, whose forward pass is what DDP and the compiler see.

    `self.gpt` stays an ordinary module: evaluation, sampling and checkpoints use it, compiled or not.
    """

    def __init__(self, gpt: GPT):
        super().__init__()
        self.gpt = gpt
        self.hidden = gpt.hidden
        self.compiled = False

    def compile_step(self) -> None:
        """From now on the forward and backward passes run compiled."""
        self.hidden = torch.compile(self.gpt.hidden, dynamic=False)
        self.compiled = True

    def use_eager(self) -> None:
        """The plain way."""
        self.hidden = self.gpt.hidden
        self.compiled = False

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The summed nats of (B, T) targets, as a scalar."""
        weight, vocab_size = self.gpt.wte.weight, self.gpt.config.vocab_size
        return head_nats(self.hidden(ids), weight, targets, vocab_size, compiled=self.compiled)


@dataclass(frozen=True)
class StepResult:
    """What a step is recorded by."""

    loss: float  # nats per token, mean over the global batch on all ranks
    grad_norm: float  # before clipping
    stop_asked: bool  # some rank was told to stop
    updated: bool  # False where fp16's scaler skipped the update


class Stepper:
    """Holds what a step needs, and makes steps.

    Args:
        gpt: fp32 weights on the rank's device.
        step_tokens: tokens of the global batch, by which the summed loss is divided.
    """

    def __init__(
        self,
        gpt: GPT,
        optimizer: torch.optim.Optimizer,
        *,
        ranks: Ranks,
        precision: Precision,
        clip_norm: float,
        seed: int,
    ):
        self.gpt = gpt
        self.optimizer = optimizer
        self.ranks = ranks
        self.precision = precision
        self.clip_norm = clip_norm
        self.seed = seed
        self.loss = SummedLoss(gpt)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=precision.name == "fp16")
        self.module: nn.Module = self.loss

    def distribute(self) -> None:
        """Wraps the loss so that gradients are averaged over the ranks during the last backward pass."""
        if self.ranks.world_size > 1:
            device_ids = [self.ranks.device.index] if self.ranks.device.type == "cuda" else None
            self.module = DistributedDataParallel(
                self.loss, device_ids=device_ids, gradient_as_bucket_view=True
            )

    def seed_step(self, step: int) -> None:
        """Dropout's randomness is a function of (seed, step, rank): a resume needs no generator's state."""
        entropy = np.random.SeedSequence([self.seed, step, self.ranks.rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def backward(self, batch: Batch, scale: float) -> Tensor:
        """Adds one micro-batch's gradient; returns its summed nats, still on the device."""
        ids, targets = batch
        with self.precision.autocast(self.ranks.device):
            nats = self.module(ids, targets)
        self.scaler.scale(nats * scale).backward()
        return nats.detach()

    def step(
        self,
        step: int,
        batches: Iterator[Batch],
        *,
        accumulate: int,
        step_tokens: int,
        learning_rate: float,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> StepResult:
        """One update from the next `accumulate` micro-batches of this rank.

        Args:
            step: updates made before this one.
            stop_asked: asked at the end: was this rank told to stop? The result says whether any was.
        Raises:
            DivergedError: the loss or the gradient's norm is not finite on some rank. Nothing was updated.
        """
        self.gpt.train()
        self.seed_step(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # DDP averages over ranks; the loss is divided by the tokens of all of them, so the mean is undone here.
        scale = self.ranks.world_size / step_tokens
        # [nats on all ranks, ranks asked to stop]; the sum tells every rank the same, so all stop at one step.
        totals = torch.zeros(2, dtype=torch.float64 if self.ranks.device.type != "mps" else torch.float32)
        totals = totals.to(self.ranks.device)
        for number in range(accumulate):
            with self._no_sync(number < accumulate - 1):
                totals[0] += self.backward(next(batches), scale)
        self.scaler.unscale_(self.optimizer)
        totals[1] = float(stop_asked())
        norm = nn.utils.clip_grad_norm_(self.gpt.parameters(), self.clip_norm)
        nats, stops = self.ranks.sum_(totals).tolist()
        loss, grad_norm = nats / step_tokens, float(norm)
        self._require_finite(step, loss, grad_norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, grad_norm, stops > 0, updated=self.scaler.get_scale() >= before)

    def _no_sync(self, quiet: bool) -> contextlib.AbstractContextManager[None]:
        if quiet and isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return contextlib.nullcontext()

    def _require_finite(self, step: int, loss: float, grad_norm: float) -> None:
        overflowed = self.scaler.is_enabled() and np.isfinite(
            loss
        )  # the scaler skips the step and lowers its scale
        if np.isfinite(loss) and (np.isfinite(grad_norm) or overflowed):
            return
        self.optimizer.zero_grad(set_to_none=True)
        what = f"the loss is {loss}" if not np.isfinite(loss) else f"the gradient's norm is {grad_norm}"
        raise DivergedError(
            f"step {step + 1}: {what}; nothing was updated, and the last checkpoint stands. "
            "Lower --learning-rate, or train with --precision fp32"
        )
