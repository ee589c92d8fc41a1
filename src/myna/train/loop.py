"""The loop: step, record, save, evaluate. The caller builds everything that the loop needs."""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from myna.data.prefetch import Prefetcher
from myna.errors import DivergedError, Stopped
from myna.progress import Progress
from myna.signals import StopRequest, stop_on_signals
from myna.train.evaluations import Evaluation, Evaluations, StopAskedError
from myna.train.keep.checkpoints import Checkpoints
from myna.train.machines.pauses import COLLECT_EVERY_STEPS, collect_garbage, garbage_collected_at_pauses
from myna.train.recipe import Recipe
from myna.train.spike import SpikeRule
from myna.train.state import TrainState
from myna.train.step import Stepper, StepResult

# Each skipped update halves fp16's scale: after 20, from 65,536 to 1/16. No sound gradient needs so small a scale.
MOST_SKIPPED = 20


@dataclass(frozen=True)
class Plan:
    """What the loop is told about the run.

    Attributes:
        at_once: sequences that all ranks compute at once: ranks times micro-batch. It divides the sequences of a step.
        learning_rate: the number of finished steps -> the learning rate of the next step.
        targets: (first sample, how many) -> how many targets of these samples the loss counts. See `Stream.n_targets`.
        mfu_per_token_per_s: model FLOPs utilisation at one token per second.
    """

    recipe: Recipe
    at_once: int
    learning_rate: Callable[[int], float]
    targets: Callable[[int, int], int]
    mfu_per_token_per_s: float


class Training:
    """Takes a run from its current step to its last one.

    Args:
        state: the run's current state; the loop updates it.
        batches: the number of a sample -> opens this rank's micro-batches, from that sample on.
        record: keeps (step, tokens, values) of a finished step; called on the main rank.
        enough: whether a step's loss ends the run early. All ranks get the same answer, since they have the same loss.
    """

    def __init__(
        self,
        plan: Plan,
        state: TrainState,
        *,
        stepper: Stepper,
        batches: Callable[[int], AbstractContextManager[Prefetcher]],
        evaluations: Evaluations,
        checkpoints: Checkpoints,
        spikes: SpikeRule,
        record: Callable[[int, int, dict[str, float]], None],
        enough: Callable[[float], bool] = lambda loss: False,
    ):
        self.plan, self.recipe, self.state, self.stepper = plan, plan.recipe, state, stepper
        self.batches, self.evaluations, self.checkpoints = batches, evaluations, checkpoints
        self.spikes, self.record, self.enough, self.ranks = spikes, record, enough, stepper.ranks
        self._seconds_per_token: float | None = None  # smoothed

    def is_whole(self) -> bool:
        """Whether no step is left, and the results of every evaluation that is due at the current step are on disk.

        All ranks must call this method together.
        """
        return self.state.is_done(self.recipe.steps) and not self.evaluations.missing(self.state.step)

    def train(self) -> None:
        """Runs to the last step.

        Raises:
            Stopped: a signal came. The loop first finished the current step and saved a checkpoint.
            DivergedError: the loss or gradient is not finite, or the loss spikes in a run with `--on-spike stop`.
            OutputError: a checkpoint could not be written.
        """
        first, steps = self.state.step, self.recipe.steps
        with (
            stop_on_signals(one_of_many=self.ranks.world_size > 1) as stop,
            garbage_collected_at_pauses(),
            self.batches(self.state.samples) as batches,
            Progress(
                "step", steps, done=first, stream=sys.stdout, shown=self.ranks.is_main, at_once=True
            ) as progress,
        ):
            self._evaluate(progress, stop, self.evaluations.missing(first))
            while not self.state.is_done(steps):
                try:
                    result = self._step(batches, progress, stop)
                except DivergedError as error:
                    raise DivergedError(f"{error.what}; {self.checkpoints.kept()}", error.advice) from error
                last, due = self.state.is_done(steps), self._checkpoint_due()
                # Save before evaluating: an evaluation may take long, or fail.
                if last or due or result.stop_asked:
                    self._save()
                if result.stop_asked and not last:
                    self._stop(stop)
                self._evaluate(progress, stop)
                if self.checkpoints.failed() or last:
                    # If a checkpoint could not be written, this raises the error.
                    self.checkpoints.join()
                if due or self.state.step % COLLECT_EVERY_STEPS == 0:
                    collect_garbage()

    def _checkpoint_due(self) -> bool:
        every = self.recipe.checkpoint_every
        return every > 0 and self.state.step % every == 0

    def _save(self) -> None:
        self.state.scaler = self.stepper.scaler.state_dict()
        self.state.spikes = self.spikes.state()
        self.checkpoints.save(self.state)

    def _stop(self, stop: StopRequest) -> None:
        self._save()
        self.checkpoints.join()
        raise Stopped(
            f"stopped by {stop.signal_name or 'a signal to another rank'} after step {self.state.step}, which is "
            "saved; the same command goes on from there"
        )

    def _step(self, batches: Prefetcher, progress: Progress, stop: StopRequest) -> StepResult:
        recipe, state = self.recipe, self.state
        samples = recipe.ramp.at(state.samples)
        tokens = samples * recipe.sequence_length
        rate = self.plan.learning_rate(state.step)
        stops_on_spike = self.spikes.on_spike == "stop"
        began, waited = time.perf_counter(), batches.wait_seconds
        result = self.stepper.step(
            state.step,
            batches,
            accumulate=samples // self.plan.at_once,
            step_targets=self.plan.targets(state.samples, samples),
            learning_rate=rate,
            stop_asked=stop.asked,
            before_update=functools.partial(self.spikes.see, state.step + 1) if stops_on_spike else None,
        )
        seconds = time.perf_counter() - began
        if not stops_on_spike:
            self.spikes.see(state.step + 1, result.loss)
        state.step += 1
        state.samples += samples
        state.tokens += tokens
        state.optimizer_steps += result.updated
        state.ended = self.enough(result.loss)
        state.skipped_in_row = 0 if result.updated else state.skipped_in_row + 1
        tokens_per_second = tokens / seconds
        values = {
            "train_loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
            "tokens_per_second": round(tokens_per_second, 1),
            "mfu": round(tokens_per_second * self.plan.mfu_per_token_per_s, 4),
            "seconds": round(seconds, 6),
            "input_wait_seconds": round(batches.wait_seconds - waited, 6),
        }
        # Empty on a GPU: there the stopwatch is off, since reading it would wait for the device.
        timed = self.stepper.stopwatch.take()
        if "optimizer" in timed:
            values["optimizer_seconds"] = round(timed["optimizer"], 6)
        if self.stepper.scaler.is_enabled():
            values["skipped"] = int(not result.updated)
        if self.ranks.is_main:
            self.record(state.step, state.tokens, values)
        self._show(progress, result.loss, rate, seconds / tokens)
        self._require_updates()
        return result

    def _show(self, progress: Progress, loss: float, rate: float, seconds_per_token: float) -> None:
        """Shows a running mean of the speed, so one slow step changes little. metrics.jsonl has each step's figures."""
        recipe, step, samples = self.recipe, self.state.step, self.state.samples
        before = self._seconds_per_token
        smooth = seconds_per_token if before is None else 0.9 * before + 0.1 * seconds_per_token
        self._seconds_per_token = smooth
        left = recipe.ramp.after(recipe.steps - step, samples) - samples
        progress.update(
            step,
            f"loss {loss:.4f} · {1 / smooth:,.0f} tokens/s · lr {rate:.2e}",
            seconds_left=left * recipe.sequence_length * smooth,
            line=self.state.is_done(recipe.steps),
        )

    def _require_updates(self) -> None:
        skipped = self.state.skipped_in_row
        if skipped >= MOST_SKIPPED:
            raise DivergedError(
                f"step {self.state.step}: fp16 has skipped {skipped} updates in a row, since the gradient was not "
                "finite",
                "Lower --learning-rate, or train with --precision bf16 or fp32",
            )

    def _evaluate(
        self, progress: Progress, stop: StopRequest, only: Sequence[Evaluation] | None = None
    ) -> None:
        """Runs the evaluations that are due at this step, or those in `only`.

        Raises:
            Stopped: a signal came between two batches; the step is saved.
        """
        step = self.state.step
        try:
            for _, values in self.evaluations.run(step, stop.asked, only):
                if self.ranks.is_main:
                    self.record(step, self.state.tokens, values)
                    shown = [
                        f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
                    ]
                    progress.say(f"step {step}: {' · '.join(shown)}")
        except StopAskedError:
            self._stop(stop)
