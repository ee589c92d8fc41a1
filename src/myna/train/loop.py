"""The loop: step, record, what is due, checkpoint. Everything it needs is handed to it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from myna.data.batches import TrainStream, micro_batches
from myna.data.prefetch import Prefetcher
from myna.errors import CheckpointError, Stopped, UsageError
from myna.model.checkpoint import (
    checkpoint_name,
    checkpoint_step,
    load_train_state,
    newest_sound,
    save_checkpoint,
    set_aside,
)
from myna.model.gpt2 import GPT
from myna.run import Run
from myna.text.tokenizer import Tokenizer
from myna.train.flops import flops_per_token, peak_flops
from myna.train.optim import make_optimizer, optimizer_tensors, restore_optimizer
from myna.train.progress import TrainingProgress
from myna.train.ranks import Precision, Ranks
from myna.train.recipe import Recipe
from myna.train.schedule import learning_rate
from myna.train.signals import stop_on_signals
from myna.train.step import Stepper, StepResult


@dataclass(frozen=True)
class Hook:
    """Something done during training: validation, HellaSwag, samples.

    Called on every rank before step 1, at each multiple of `every_steps`, and after the last step. What it returns
    is written to the metrics; None writes nothing.
    """

    every_steps: int
    function: Callable[[GPT, int], dict[str, float] | None]

    def due(self, step: int, steps: int) -> bool:
        """Whether it runs when `step` updates are finished."""
        return self.every_steps > 0 and (step % self.every_steps == 0 or step == steps)


class Training:
    """One run from wherever it stands to its last step.

    Args:
        model: fp32 weights on the rank's device; replaced by the checkpoint's where the run has one.
        recipe: may say "auto" for the micro-batch until `settle` is called.
        dataset_id: what identifies the data: a resume on other data is refused.
    """

    def __init__(
        self,
        *,
        model: GPT,
        tokenizer: Tokenizer,
        recipe: Recipe,
        run: Run,
        stream: TrainStream,
        dataset_id: str,
        ranks: Ranks,
        precision: Precision,
        hooks: Sequence[Hook],
    ):
        self.model, self.tokenizer, self.recipe, self.run, self.stream = model, tokenizer, recipe, run, stream
        self.dataset_id, self.ranks, self.hooks = dataset_id, ranks, hooks
        self.optimizer = make_optimizer(model, recipe)
        self.stepper = Stepper(
            model,
            self.optimizer,
            ranks=ranks,
            precision=precision,
            clip_norm=recipe.clip_norm,
            seed=recipe.seed,
        )
        self.finished_steps = 0
        self.samples = 0  # consumed so far: the whole state of the data

    def settle(self, recipe: Recipe) -> None:
        """Takes the recipe with a micro-batch that is a number.

        Raises:
            UsageError: the batch doesn't divide by it and the ranks.
        """
        assert isinstance(recipe.micro_batch, int)
        self.recipe, self.micro_batch = recipe, recipe.micro_batch
        self.accumulate = accumulation(recipe, self.ranks.world_size)

    def first_batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The run's first n sequences, for trying the step out."""
        inputs, targets = (torch.from_numpy(part.copy()) for part in self.stream.batch(0, n))
        return inputs.to(self.ranks.device), targets.to(self.ranks.device)

    def try_out(self, n: int) -> None:
        """Runs a micro-batch of n sequences forward and backward, and forgets it."""
        try:
            self.stepper.backward(self.first_batch(n), scale=1.0)
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def resume(self, say: Callable[[str], None]) -> None:
        """Takes up the newest sound checkpoint, if the run has one. Damaged ones are renamed and named."""
        found = ""
        if self.ranks.is_main:

            def damaged(path: Any, error: CheckpointError) -> None:
                say(f"{error} Renamed to {set_aside(path).name}.")

            newest = newest_sound(self.run.checkpoints, damaged)
            found = newest.name if newest else ""
        found = self.ranks.from_main(found)
        if not found:
            return
        path = self.run.checkpoints / found
        tensors, state = load_train_state(path, self.model)
        if state["dataset"] != self.dataset_id:
            raise UsageError(
                f"{path} was trained on other data (dataset {state['dataset'][:12]}, now {self.dataset_id[:12]}); "
                "give the same --data, or another --out"
            )
        self.model.load_state_dict(GPT.from_pretrained(path).state_dict())
        self.finished_steps, self.samples = checkpoint_step(path), state["samples"]
        restore_optimizer(self.optimizer, self.model, tensors, state["optimizer_steps"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        say(f"resuming after step {self.finished_steps} from {path}")

    def save(self) -> None:
        """The checkpoint of the current step."""
        if self.ranks.is_main:
            steps_made = {int(state["step"]) for state in self.optimizer.state.values()}
            state = {
                "step": self.finished_steps,
                "samples": self.samples,
                "optimizer_steps": max(steps_made, default=0),  # fewer than `step` where fp16 skipped some
                "rng": {"seeded_by": "seed, step, rank", "seed": self.recipe.seed},
                "scaler": self.stepper.scaler.state_dict(),
                "dataset": self.dataset_id,
                "recipe": self.recipe.to_dict(),
            }
            path = self.run.checkpoints / checkpoint_name(self.finished_steps)
            save_checkpoint(
                path, self.model, self.tokenizer, optimizer_tensors(self.optimizer, self.model), state
            )
        self.ranks.barrier()

    def train(self) -> None:
        """Runs to the last step.

        Raises:
            Stopped: a signal came; the step it came in was finished and saved.
            DivergedError: loss or gradient not finite.
        """
        recipe = self.recipe
        samples = micro_batches(
            self.stream,
            self.samples,
            recipe.batch_samples,
            self.micro_batch,
            self.ranks.rank,
            self.ranks.world_size,
        )
        dtype = self.stepper.precision.dtype or torch.float32
        peak, _ = peak_flops(self.ranks.device, dtype)
        self.mfu_per_rate = flops_per_token(self.model.config, recipe.sequence_length) / (
            peak * self.ranks.world_size
        )
        self.stepper.distribute()
        with (
            stop_on_signals() as stop,
            Prefetcher(samples, self.ranks.device) as batches,
            TrainingProgress(
                first_step=self.finished_steps, steps=recipe.steps, shown=self.ranks.is_main
            ) as progress,
        ):
            if self.finished_steps == 0:
                self._run_hooks(progress)
            while self.finished_steps < recipe.steps:
                result = self._step(batches, progress, stop.asked)
                self._run_hooks(progress)
                last = self.finished_steps == recipe.steps
                due = recipe.checkpoint_every and self.finished_steps % recipe.checkpoint_every == 0
                if last or due or result.stop_asked:
                    self.save()
                if result.stop_asked and not last:
                    raise Stopped(
                        f"stopped by {stop.signal_name or 'a signal to another rank'} after step "
                        f"{self.finished_steps}, which is saved; the same command goes on from there"
                    )

    def _step(
        self, batches: Prefetcher, progress: TrainingProgress, stop_asked: Callable[[], bool]
    ) -> StepResult:
        recipe = self.recipe
        rate = learning_rate(
            self.finished_steps,
            peak=recipe.learning_rate,
            final_fraction=recipe.final_learning_rate_fraction,
            warmup_steps=recipe.warmup_steps,
            steps=recipe.steps,
        )
        began, waited = time.perf_counter(), batches.wait_seconds
        result = self.stepper.step(
            self.finished_steps,
            batches,
            accumulate=self.accumulate,
            step_tokens=recipe.batch_tokens,
            learning_rate=rate,
            stop_asked=stop_asked,
        )
        seconds = time.perf_counter() - began
        self.finished_steps += 1
        self.samples += recipe.batch_samples
        tokens_per_second = recipe.batch_tokens / seconds
        if self.ranks.is_main:
            self._record(
                {
                    "train_loss": result.loss,
                    "learning_rate": rate,
                    "grad_norm": result.grad_norm,
                    "tokens_per_second": round(tokens_per_second, 1),
                    "mfu": round(tokens_per_second * self.mfu_per_rate, 4),
                    "seconds": round(seconds, 6),
                    "input_wait_seconds": round(batches.wait_seconds - waited, 6),
                }
            )
        progress.step(
            self.finished_steps,
            loss=result.loss,
            learning_rate=rate,
            tokens_per_second=tokens_per_second,
            seconds=seconds,
        )
        return result

    def _run_hooks(self, progress: TrainingProgress) -> None:
        for hook in self.hooks:
            if not hook.due(self.finished_steps, self.recipe.steps):
                continue
            values = hook.function(self.model, self.finished_steps)
            if values and self.ranks.is_main:
                self._record(values)
                shown = " · ".join(
                    f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
                )
                progress.say(f"step {self.finished_steps}: {shown}")

    def _record(self, values: dict[str, float]) -> None:
        tokens = self.finished_steps * self.recipe.batch_tokens
        self.run.append_metrics({"step": self.finished_steps, "tokens": tokens} | values)


def accumulation(recipe: Recipe, world_size: int) -> int:
    """Micro-batches that a rank adds up in a step.

    Raises:
        UsageError: the batch doesn't divide; names the nearest that do.
    """
    assert isinstance(recipe.micro_batch, int), "settle auto before training"
    unit = world_size * recipe.micro_batch
    if recipe.batch_samples % unit:
        low = recipe.batch_samples // unit * unit
        near = " and ".join(f"{n * recipe.sequence_length:,}" for n in (low, low + unit) if n)
        raise UsageError(
            f"a batch of {recipe.batch_samples} sequences does not divide among {world_size} ranks with micro-batches "
            f"of {recipe.micro_batch}; the nearest --batch-tokens that do are {near}"
        )
    return recipe.batch_samples // unit


def compile_or_say_why(
    stepper: Stepper, batch: tuple[torch.Tensor, torch.Tensor], say: Callable[[str], None]
) -> None:
    """Compiles the step by running it once on a batch; where that fails, goes back to eager and says why.

    The weights, the optimizer and the data are left as they were.
    """
    stepper.loss.compile_step()
    try:
        stepper.gpt.train()
        stepper.backward(batch, scale=1.0)
        failure = ""
    except Exception as error:  # the compiler's backends raise whatever their tools raise
        failure = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
    stepper.optimizer.zero_grad(set_to_none=True)
    failed = torch.tensor([float(bool(failure))], device=stepper.ranks.device)
    if float(stepper.ranks.sum_(failed)):  # all ranks or none, so that they stay in step
        stepper.loss.use_eager()
        say(f"torch.compile failed, training without it: {failure or 'on another rank'}")
