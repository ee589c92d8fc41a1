"""The step of a rung, ready to be called: the lecture's with some of its changes, or ours."""

from collections.abc import Sequence
from typing import Protocol

import torch

from myna.bench.ladder import OURS, Switches, switches
from myna.bench.lecture import Batch, LectureGPT, LectureStep
from myna.model.gpt2 import GPT
from myna.train.allocator import keep_freed_memory
from myna.train.average import make_average
from myna.train.loop import compile_or_say_why
from myna.train.optim import make_optimizer
from myna.train.ranks import Ranks, apply_precision, resolve_precision
from myna.train.recipe import Recipe
from myna.train.step import Stepper


class Step(Protocol):
    """A call is an update, and gives the loss it began with."""

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is at work in it."""

    def use_eager(self) -> None:
        """From now on it is not."""

    def __call__(self) -> float: ...


def make_step(
    rung: str, gpt: GPT, recipe: Recipe, batches: Sequence[Batch], without: Sequence[str]
) -> tuple[Step, str]:
    """The step of a rung, and why it is not compiled where the compiler failed already (else "").

    Args:
        gpt: fresh weights on the device; they become the step's own.
        without: the names of rungs that this machine does not have.
    """
    if rung == OURS:
        return our_step(gpt, recipe, batches)
    return lecture_step(gpt, recipe, batches, switches(rung, without)), ""


def lecture_step(gpt: GPT, recipe: Recipe, batches: Sequence[Batch], on: Switches) -> LectureStep:
    """The lecture's step with the changes that are `on`, around the weights of `gpt`."""
    # "highest" multiplies fp32 as fp32; "high" lets the GPU's matrix units take TF32 for it.
    torch.set_float32_matmul_precision("high" if on.tf32 else "highest")
    model = LectureGPT.with_weights(
        gpt.config, gpt.state_dict(), flash=on.flash_attention, padded=on.padded_vocabulary
    )
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        # Not False: that would also keep CUDA from taking a list of parameters at a time, as it does by default.
        fused=True if on.fused_adamw else None,
    )
    step = LectureStep(model, optimizer, batches, bf16=on.bf16, clip_norm=recipe.clip_norm)
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

    def __call__(self) -> float:
        return self.stepper.step(
            0,
            iter(self.batches),
            accumulate=len(self.batches),
            step_tokens=sum(ids.numel() for ids, _ in self.batches),
            learning_rate=self.recipe.learning_rate,
        ).loss


def our_step(gpt: GPT, recipe: Recipe, batches: Sequence[Batch]) -> tuple[OurStep, str]:
    """What `myna train` does with the recipe: its precision, allocator, optimizer, step, compiled where it says so."""
    precision = resolve_precision(recipe.precision, gpt.device)
    apply_precision(precision)
    if gpt.device.type == "cpu":
        keep_freed_memory()
    stepper = Stepper(
        gpt,
        make_optimizer(gpt, recipe),
        ranks=Ranks(0, 1, gpt.device),
        precision=precision,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        average=make_average(gpt, recipe),
    )
    failures: list[str] = []
    if recipe.compile:
        compile_or_say_why(stepper, batches[0], failures.append)
    return OurStep(stepper, recipe, batches), "".join(failures)
