"""The loop: step, record, what is due, checkpoint. Everything it needs is handed to it."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from myna.data.batches import TrainStream, micro_batches
from myna.data.prefetch import Prefetcher
from myna.errors import Stopped, UsageError
from myna.model.checkpoint import checkpoint_step
from myna.model.gpt2 import GPT
from myna.run import Run
from myna.train.average import make_average
from myna.train.flops import flops_per_token, peak_flops
from myna.train.memory import explained_memory, is_out_of_memory
from myna.train.optim import MOMENTS, make_optimizer, optimizer_tensors
from myna.train.pauses import EVERY_STEPS, collect, collected_at_pauses
from myna.train.progress import TrainingProgress
from myna.train.ranks import Precision, Ranks
from myna.train.recipe import Recipe
from myna.train.resume import WEIGHTS, load_checkpoint, newest_on_main
from myna.train.saver import Saver, Snapshot
from myna.train.schedule import learning_rate
from myna.train.shard import shard_model, unsharded, whole
from myna.train.signals import stop_on_signals
from myna.train.spike import SpikeRule
from myna.train.step import Stepper, StepResult
from myna.train.track import NoTracker, Tracker


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
        sharded: spread weights and optimizer over the ranks (FSDP2), rather than copy them to each (DDP).
    """

    tracker: Tracker = NoTracker()

    def __init__(
        self,
        *,
        model: GPT,
        recipe: Recipe,
        run: Run,
        stream: TrainStream,
        dataset_id: str,
        ranks: Ranks,
        precision: Precision,
        hooks: Sequence[Hook],
        saver: Saver,
        spikes: SpikeRule,
        sharded: bool = False,
    ):
        self.model, self.recipe, self.run, self.stream = model, recipe, run, stream
        self.dataset_id, self.ranks, self.hooks = dataset_id, ranks, hooks
        self.saver, self.spikes, self.sharded = saver, spikes, sharded
        if sharded:
            shard_model(model, ranks)
        self.optimizer = make_optimizer(model, recipe)
        self.average = make_average(model, recipe)
        self.stepper = Stepper(
            model,
            self.optimizer,
            ranks=ranks,
            precision=precision,
            clip_norm=recipe.clip_norm,
            seed=recipe.seed,
            average=self.average,
        )
        self.finished_steps = 0
        self.samples = 0  # consumed so far: the whole state of the data
        self.tokens = 0

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
        """Runs a micro-batch of n sequences forward and backward, and forgets it.

        On a GPU, where the question is whether it fits, beside what a later micro-batch of a later step finds there:
        gradients, and Adam's moments.
        """
        batch, on_gpu = self.first_batch(n), self.ranks.device.type == "cuda"
        kinds = len(MOMENTS) if on_gpu and not self.optimizer.state else 0
        moments = [torch.empty_like(p) for p in self.model.parameters() for _ in range(kinds)]
        try:
            for _ in range(2 if on_gpu else 1):
                self.stepper.backward(batch, scale=1.0)
        finally:
            moments.clear()
            self.optimizer.zero_grad(set_to_none=True)

    def resume(self, say: Callable[[str], None], override: bool = False) -> Path | None:
        """Takes up the newest sound checkpoint, if the run has one. Damaged ones are renamed and named.

        Args:
            override: go on even on other data.
        Raises:
            UsageError: it was trained on other data.
        """
        path = newest_on_main(self.run, self.ranks, say)
        if path is None:
            return None
        state = load_checkpoint(path, self.model, self.optimizer, self.average)
        if state["dataset"] != self.dataset_id:
            changed = f"dataset {state['dataset'][:12]}, now {self.dataset_id[:12]}"
            if not override:
                raise UsageError(
                    f"{path} was trained on other data ({changed}); give the same --data or another --out, "
                    "or go on with --override"
                )
            say(f"going on with other data: {changed}")
        self.finished_steps, self.samples = checkpoint_step(path), state["samples"]
        self.tokens = state["tokens"]
        if state["scaler"]:  # empty where it was off; then one that is on now begins as in a new run
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.spikes.load(state["spikes"])
        say(f"resuming after step {self.finished_steps} from {path}")
        if state["world_size"] != self.ranks.world_size:
            say(f"ranks: {state['world_size']} before, {self.ranks.world_size} now; the batches are the same")
        return path

    def save(self) -> None:
        """Copies the current step, and has it written while training goes on."""
        if self.ranks.is_main:
            self.saver.join()
        snapshot = self._snapshot()
        if self.ranks.is_main:
            self.saver.begin(snapshot)

    def _snapshot(self) -> Snapshot:
        """Of a sharded model every rank takes part in gathering; the main rank's copy is the one that counts."""

        def take(key: str, tensor: torch.Tensor) -> torch.Tensor:
            tensor = whole(tensor)
            return self.saver.buffers.take(key, tensor) if self.ranks.is_main else tensor

        kinds = optimizer_tensors(self.optimizer, self.model)
        saved = self.model.state_dict()
        if self.average is not None:  # it is the model then, and the weights are what training goes on from
            saved, kinds = self.average.values, kinds | {WEIGHTS: saved}
        weights = {name: take(name, tensor) for name, tensor in saved.items()}
        moments = {
            kind: {name: take(f"{kind} {name}", tensor) for name, tensor in tensors.items()}
            for kind, tensors in kinds.items()
        }
        steps_made = {int(state["step"]) for state in self.optimizer.state.values()}
        state = {
            "step": self.finished_steps,
            "samples": self.samples,
            "tokens": self.tokens,
            "optimizer_steps": max(steps_made, default=0),  # fewer than `step` where fp16 skipped some
            "rng": {"seeded_by": "seed, step, rank", "seed": self.recipe.seed},
            "scaler": self.stepper.scaler.state_dict(),
            "spikes": self.spikes.state(),
            "dataset": self.dataset_id,
            "world_size": self.ranks.world_size,
            "recipe": self.recipe.to_dict(),
        }
        return Snapshot(self.finished_steps, self.model.config, weights, moments, state)

    def join_saver(self) -> None:
        """Until the checkpoint in flight is on the disk; on every rank."""
        if self.ranks.is_main:
            self.saver.join()
        self.ranks.barrier()

    def train(self) -> None:
        """Runs to the last step.

        Raises:
            Stopped: a signal came; the step it came in was finished and saved.
            DivergedError: loss or gradient not finite, or a spike where the run is to stop for one.
            OutputError: a checkpoint could not be written.
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
            stop_on_signals(one_of_many=self.ranks.world_size > 1) as stop,
            collected_at_pauses(),
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
                if self.saver.failed() or last or result.stop_asked:
                    self.join_saver()  # raises what the writer met
                if result.stop_asked and not last:
                    raise Stopped(
                        f"stopped by {stop.signal_name or 'a signal to another rank'} after step "
                        f"{self.finished_steps}, which is saved; the same command goes on from there"
                    )
                if due or self.finished_steps % EVERY_STEPS == 0:
                    collect()

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
        with explained_memory(f"step {self.finished_steps + 1}", self.micro_batch):
            result = self.stepper.step(
                self.finished_steps,
                batches,
                accumulate=self.accumulate,
                step_tokens=recipe.batch_tokens,
                learning_rate=rate,
                stop_asked=stop_asked,
                before_update=lambda loss: self.spikes.see(self.finished_steps + 1, loss),
            )
        seconds = time.perf_counter() - began
        self.finished_steps += 1
        self.samples += recipe.batch_samples
        self.tokens += recipe.batch_tokens
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
        due = [hook for hook in self.hooks if hook.due(self.finished_steps, self.recipe.steps)]
        if not due:
            return
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            model = unsharded(self.model)
            for hook in due:
                self._run_hook(hook, model, progress)

    def _run_hook(self, hook: Hook, model: GPT, progress: TrainingProgress) -> None:
        values = hook.function(model, self.finished_steps)
        if values and self.ranks.is_main:
            self._record(values)
            shown = " · ".join(
                f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
            )
            progress.say(f"step {self.finished_steps}: {shown}")

    def _record(self, values: dict[str, float]) -> None:
        self.run.append_metrics({"step": self.finished_steps, "tokens": self.tokens} | values)
        self.tracker.record(self.finished_steps, values)


def accumulation(recipe: Recipe, world_size: int) -> int:
    """Micro-batches that a rank adds up in a step.

    Raises:
        UsageError: the batch doesn't divide; names the nearest that do.
    """
    assert isinstance(recipe.micro_batch, int), "settle auto before training"
    unit = world_size * recipe.micro_batch
    if recipe.batch_samples % unit:
        low = recipe.batch_samples // unit * unit
        near = " or ".join(f"{n * recipe.sequence_length:,}" for n in (low, low + unit) if n)
        share, rest = divmod(recipe.batch_samples, world_size)
        smaller = min(recipe.micro_batch, share)
        while not rest and share % smaller:
            smaller -= 1
        same = "" if rest else f"--micro-batch {smaller}, or "
        raise UsageError(
            f"a batch of {recipe.batch_samples} sequences does not divide among {world_size} ranks with micro-batches "
            f"of {recipe.micro_batch}; give {same}--batch-tokens {near}"
        )
    return recipe.batch_samples // unit


def compile_or_say_why(
    stepper: Stepper, batch: tuple[torch.Tensor, torch.Tensor], say: Callable[[str], None]
) -> None:
    """Compiles the step by running it once on a batch; where that fails, goes back to eager and says why.

    The weights, the optimizer and the data are left as they were.

    Raises:
        OutOfMemoryError: memory ran out on some rank, which running it eagerly would not mend.
    """
    stepper.loss.compile_step()
    failure, no_memory = "", False
    try:
        stepper.gpt.train()
        stepper.backward(batch, scale=1.0)
    except Exception as error:  # the compiler's backends raise whatever their tools raise
        no_memory = is_out_of_memory(error)
        failure = first_line(error)
    stepper.optimizer.zero_grad(set_to_none=True)
    flags = torch.tensor([float(bool(failure)), float(no_memory)], device=stepper.ranks.device)
    failed, lacking = stepper.ranks.sum_(flags).tolist()  # all ranks or none, so that they stay in step
    if lacking:
        raise torch.OutOfMemoryError(failure or "on another rank")
    if failed:
        stepper.loss.use_eager()
        say(f"torch.compile failed, training without it: {failure or 'on another rank'}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
