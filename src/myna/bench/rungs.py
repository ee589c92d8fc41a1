"""The step of a rung, ready to be called: the lecture's with some of its changes, or ours."""

from collections.abc import Sequence
from typing import Protocol

import torch

from myna.bench.ladder import OURS, Switches, switches
from myna.bench.lecture import Batch, LectureGPT, LectureStep, updates_skipped_by
from myna.device import apply_precision, resolve_precision
from myna.model.network import Network
from myna.settings import CompileBy
from myna.train.build import new_stepper
from myna.train.compiling import compile_or_say_why
from myna.train.machines.allocator import keep_freed_memory
from myna.train.machines.ranks import Ranks
from myna.train.optimizers.adamw import AdamWOptions
from myna.train.recipe import Recipe
from myna.train.step import Stepper


class Step(Protocol):
    """A call is an update, and gives the loss it began with."""

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is at work in it."""

    def use_eager(self) -> None:
        """From now on it is not."""

    def parts(self) -> dict[str, float]:
        """Seconds of the parts that are timed, since it was last asked."""

    def skipped_updates(self) -> int:
        """Updates that fp16's scaler left out, because a gradient overflowed."""

    def __call__(self) -> float: ...


def make_step(
    rung: str,
    network: Network,
    recipe: Recipe,
    batches: Sequence[Batch],
    without: Sequence[str],
    compile_by: CompileBy = "auto",
) -> tuple[Step, str]:
    """The step of a rung, and why it is not compiled where the compiler failed already (else "").

    Args:
        network: fresh weights on the device; they become the step's own.
        without: the names of rungs that this machine does not have.
        compile_by: the pieces that our rung is compiled in.
    """
    if rung == OURS:
        return our_step(network, recipe, batches, compile_by=compile_by)
    return lecture_step(network, recipe, batches, switches(rung, without)), ""


def lecture_step(network: Network, recipe: Recipe, batches: Sequence[Batch], on: Switches) -> LectureStep:
    """The lecture's step with the changes that are `on`, around the weights of `network`."""
    # "highest" multiplies fp32 as fp32; "high" lets the GPU's matrix units take TF32 for it.
    torch.set_float32_matmul_precision("high" if on.tf32 else "highest")
    model = LectureGPT.with_weights(
        network.config, network.state_dict(), flash=on.flash_attention, padded=on.padded_vocabulary
    )
    options = recipe.optimizer_options
    assert isinstance(options, AdamWOptions)  # `measured_recipe` has seen to it
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        # Not False: that would also keep CUDA from taking a list of parameters at a time, as it does by default.
        fused=True if on.fused_adamw else None,
    )
    dtype = torch.bfloat16 if on.bf16 else torch.float16 if on.fp16 else None
    step = LectureStep(model, optimizer, batches, dtype=dtype, clip_norm=recipe.clip_norm)
    if on.compile:
        step.compile()
    return step


class OurStep:
    """`myna train`'s update, from the same micro-batches each time."""

    def __init__(self, stepper: Stepper, recipe: Recipe, batches: Sequence[Batch]):
        self.stepper, self.recipe, self.batches = stepper, recipe, batches

    @property
    def compiled(self) -> bool:
        return self.stepper.loss.compiled

    def use_eager(self) -> None:
        self.stepper.loss.use_eager()

    def parts(self) -> dict[str, float]:
        return self.stepper.stopwatch.take()

    def skipped_updates(self) -> int:
        return updates_skipped_by(self.stepper.scaler)

    def __call__(self) -> float:
        return self.stepper.step(
            0,
            iter(self.batches),
            accumulate=len(self.batches),
            step_targets=self.stepper.ranks.world_size * sum(ids.numel() for ids, _ in self.batches),
            learning_rate=self.recipe.learning_rate,
        ).loss


def our_step(
    network: Network,
    recipe: Recipe,
    batches: Sequence[Batch],
    *,
    ranks: Ranks | None = None,
    compile_by: CompileBy = "auto",
) -> tuple[OurStep, str]:
    """What `myna train` does with the recipe: its precision, allocator, optimizer, step, compiled where it says so.

    Args:
        ranks: those that train together, each with its own batches; None for this process alone.
    """
    precision = resolve_precision(recipe.precision, network.device)
    apply_precision(precision, network.device)
    if network.device.type == "cpu":
        keep_freed_memory()
    stepper = new_stepper(recipe, network, ranks or Ranks(0, 1, network.device), precision)
    stepper.stopwatch.on = network.device.type in ("cpu", "cuda")
    failures: list[str] = []
    if recipe.compile:
        compile_or_say_why(stepper, batches[0], failures.append, compile_by)
    stepper.distribute()
    return OurStep(stepper, recipe, batches), "".join(failures)
