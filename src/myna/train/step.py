"""One optimizer step: micro-batches in, one update out.

The loss is a sum over targets, divided by the number of targets in the global batch. So gradients of parts add up to
the gradient of the whole. A step is the same mathematics for any micro-batch and any number of ranks, even if one rank
has more targets that count than another.
"""

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from myna.device import Precision
from myna.errors import DivergedError
from myna.model.network import Network
from myna.train.average import WeightAverage
from myna.train.machines.ranks import Ranks
from myna.train.machines.reading import begin_reading
from myna.train.machines.shard import add_up_gradients, is_sharded, whole
from myna.train.machines.stopwatch import Stopwatch
from myna.train.optimizers.optimizer import Optimizer
from myna.train.summed_loss import SummedLoss

# Ids and targets. If several texts share a window, also each id's position in its own text. All are (B, T) int64.
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class StepResult:
    """What a step reports."""

    loss: float  # nats per token, mean over the global batch on all ranks
    grad_norm: float  # before clipping
    stop_asked: bool  # some rank was told to stop
    updated: bool  # False where fp16's scaler skipped the update


class Stepper:
    """Holds what a step needs, and makes steps.

    Args:
        network: fp32 weights on the rank's device.
        average: the moving average of the weights, which is updated after each update of the weights.

    Attributes:
        stopwatch: times the update of the weights.
        first_new_row: where not None, only the rows of the vocabulary from this one on are trained.
        updates_before_reading: whether the host queues an update before it has read the loss and the gradient's norm.
            If so, the GPU doesn't wait for the host: it clips by itself, and skips an update that is not finite. True
            on CUDA, with fused optimizers, without sharding. A step with `before_update` reads first in any case.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        ranks: Ranks,
        precision: Precision,
        clip_norm: float,
        seed: int,
        average: WeightAverage | None = None,
    ):
        self.network = network
        self.average = average
        self.optimizer = optimizer
        self.ranks = ranks
        optimizer.share_out(ranks)
        optimizer.use_product_dtype(precision.dtype)
        self.stopwatch = Stopwatch(ranks.device)
        optimizer.watch(self.stopwatch.part)
        self.precision = precision
        self.clip_norm = clip_norm
        self.seed = seed
        self.loss = SummedLoss(network)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=precision.name == "fp16")
        self.module: nn.Module = self.loss
        self.first_new_row: int | None = None
        self.updates_before_reading = (
            ranks.device.type == "cuda" and optimizer.skips_on_device and not is_sharded(network)
        )

    def distribute(self) -> None:
        """Wraps the loss in DDP, which averages gradients over the ranks during the last backward pass of a step.

        Does nothing for a single rank or a sharded network.
        """
        if self.ranks.world_size > 1 and not is_sharded(self.network):
            device_ids = [self.ranks.device.index] if self.ranks.device.type == "cuda" else None
            self.module = DistributedDataParallel(
                self.loss, device_ids=device_ids, gradient_as_bucket_view=True
            )

    def undistribute(self) -> None:
        """Removes the DDP wrapper, so that `distribute` can be called again."""
        self.module = self.loss
        # DDP's hooks on the weights stay until the garbage collector frees the wrapper.
        gc.collect()

    def seed_step(self, step: int) -> None:
        """Seeds torch's generator from (seed, step, rank). So no checkpoint needs to hold the generator's state."""
        entropy = np.random.SeedSequence([self.seed, step, self.ranks.rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def backward(self, batch: Batch, scale: float) -> Tensor:
        """Adds the gradient of one micro-batch's summed nats * scale. Returns the nats, still on the device."""
        with self.precision.autocast(self.ranks.device):
            nats = self.module(*batch)
        self.scaler.scale(nats * scale).backward()
        return nats.detach()

    def try_out(self, batch: Batch) -> None:
        """Runs a micro-batch forward and backward, and drops the gradients.

        On a GPU this tests whether the micro-batch fits into memory in a later step. So it runs twice, and the second
        run finds the gradients of the first in memory. If the optimizer has no state yet, an unused tensor takes up the
        state's memory.
        """
        on_gpu = self.ranks.device.type == "cuda"
        state_bytes = self.optimizer.memory_bytes() if on_gpu and not self.optimizer.has_state() else 0
        state = torch.empty(state_bytes, dtype=torch.uint8, device=self.ranks.device)
        try:
            for _ in range(2 if on_gpu else 1):
                self.backward(batch, scale=1.0)
        finally:
            del state
            self.optimizer.zero_grad()

    def step(
        self,
        step: int,
        batches: Iterator[Batch],
        *,
        accumulate: int,
        step_targets: int,
        learning_rate: float,
        stop_asked: Callable[[], bool] = lambda: False,
        before_update: Callable[[float], None] | None = None,
    ) -> StepResult:
        """One update from the next `accumulate` micro-batches of this rank.

        Args:
            step: steps finished before this one.
            step_targets: targets that count in the global batch, by which the summed loss is divided.
            stop_asked: called after the last backward pass: was this rank told to stop? The result says whether any
                rank was.
            before_update: called with the loss, which is the same on every rank. If it raises, nothing is updated. For
                this, the host has to read the loss before it queues the update.
        Raises:
            DivergedError: the loss or the gradient's norm is not finite on some rank. Nothing was updated. (In fp16
                only the loss raises it. If the gradient overflows, the update is skipped without an error.)
        """
        self.network.train()
        self.seed_step(step)
        self.optimizer.set_learning_rate(learning_rate)
        # The loss is divided by the targets of all ranks already, but DDP divides by the number of ranks again. The
        # factor world_size cancels that.
        scale = self.ranks.world_size / step_targets
        # Summed over the ranks: [0] the nats of all ranks, [1] how many ranks were asked to stop, [2:] the nats of each
        # rank. All ranks have the same sums, so all stop at the same step, and all can name the rank whose loss is not
        # finite.
        wide = torch.float32 if self.ranks.device.type == "mps" else torch.float64
        totals = torch.zeros(2 + self.ranks.world_size, dtype=wide, device=self.ranks.device)
        used = []
        for number in range(accumulate):
            used.append(next(batches))
            with self._no_sync(number < accumulate - 1):
                totals[0] += self.backward(used[-1], scale)
        self.optimizer.unscale(self.scaler)
        totals[1] = float(stop_asked())
        totals[2 + self.ranks.rank] = totals[0]
        self._zero_untrained_gradients()
        before_reading = self.updates_before_reading and before_update is None
        norm = self._norm(clip=not before_reading)
        totals = self.ranks.sum_(totals)
        read = begin_reading(torch.cat([totals, norm.to(wide).reshape(1)]))
        if before_reading:
            self._update_before_reading(totals[0], norm)
        nats, ranks_asked, *by_rank, grad_norm = read()
        loss = nats / step_targets
        self._require_finite(step, loss, grad_norm, by_rank, used, scale)
        if before_update is not None:
            before_update(loss)
        # If the norm is not finite here, fp16 overflowed, and the scaler lowers its scale.
        updated = math.isfinite(grad_norm)
        if updated and not before_reading:
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None and updated:
            self.average.update(step + 1)
        return StepResult(loss, grad_norm, ranks_asked > 0, updated)

    def _norm(self, *, clip: bool) -> Tensor:
        """The norm of all gradients, a scalar on the device. With `clip`, they are then scaled down to clip_norm."""
        parameters = list(self.network.parameters())
        if clip:
            return whole(nn.utils.clip_grad_norm_(parameters, self.clip_norm or math.inf))
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _update_before_reading(self, nats: Tensor, norm: Tensor) -> None:
        """Updates the weights by clipped gradients, or leaves them as they are if a number is not finite.

        Args:
            nats, norm: scalars on the device, which the host has not read.
        """
        clip_norm = self.clip_norm or math.inf
        skip = ~(nats.isfinite() & norm.isfinite())
        # This clips as clip_grad_norm_ does, but by a divisor: the kernel that updates the weights also divides the
        # gradients by it.
        self.optimizer.step(divisor=((norm + 1e-6) / clip_norm).clamp(min=1.0), skip=skip.to(norm.dtype))

    def _zero_untrained_gradients(self) -> None:
        """Sets the gradients of untrained weights to 0. An update without weight decay then leaves these unchanged."""
        if self.first_new_row is None:
            return
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None:
                rows = self.first_new_row if name in self.network.vocabulary_rows else None
                parameter.grad[:rows].zero_()

    def _no_sync(self, quiet: bool) -> contextlib.AbstractContextManager[None]:
        if isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync() if quiet else contextlib.nullcontext()
        add_up_gradients(self.network, not quiet)
        return contextlib.nullcontext()

    def _require_finite(
        self,
        step: int,
        loss: float,
        grad_norm: float,
        by_rank: Sequence[float],
        used: Sequence[Batch],
        scale: float,
    ) -> None:
        # In fp16 a gradient that is not finite is no error: the scaler skips the update and lowers its scale.
        if np.isfinite(loss) and (np.isfinite(grad_norm) or self.scaler.is_enabled()):
            return
        self.optimizer.zero_grad()
        if np.isfinite(loss):
            what, ranks = (
                f"the gradient's norm is {grad_norm}",
                self._ranks_of_bad_gradients(step, used, scale),
            )
        else:
            what, ranks = (
                f"the loss is {loss}",
                [r for r, nats in enumerate(by_rank) if not np.isfinite(nats)],
            )
        where = f", from rank {', '.join(map(str, ranks))} of {self.ranks.world_size}" if ranks else ""
        wider = "" if self.precision.name == "fp32" else ", or train with --precision fp32"
        raise DivergedError(
            f"step {step + 1}: {what}{where}; nothing was updated", f"Lower --learning-rate{wider}"
        )

    def _ranks_of_bad_gradients(self, step: int, used: Sequence[Batch], scale: float) -> list[int]:
        """The ranks whose own gradient is not finite. (If only the sum or its norm is too large, there are none.)

        Each rank computes its own gradient again, since the ranks' gradients are already added up.
        """
        # A sharded network only has gradients that are summed over the ranks.
        if is_sharded(self.network):
            return []
        self.seed_step(step)
        for batch in used:
            with self.precision.autocast(self.ranks.device):
                nats = self.loss(*batch)
            (nats * scale).backward()
        self._zero_untrained_gradients()
        bad = any(p.grad is not None and not bool(p.grad.isfinite().all()) for p in self.network.parameters())
        self.optimizer.zero_grad()
        flags = torch.zeros(self.ranks.world_size, device=self.ranks.device)
        flags[self.ranks.rank] = float(bad)
        return [rank for rank, flag in enumerate(self.ranks.sum_(flags).tolist()) if flag]
