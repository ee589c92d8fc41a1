"""What `myna train` writes on its way: checkpoints, what the run is, and the values of each step."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from myna.commands.train_about import about_data, environment
from myna.commands.train_parts import RunParts
from myna.commands.train_resume import EXTENDED_FROM
from myna.errors import MynaError, OutputError, Stopped, first_line
from myna.model.checkpoint import checkpoint_step
from myna.train.keep.copies import Copier
from myna.train.keep.saver import Retention, Saver
from myna.train.keep.snapshot import Snapshot
from myna.train.keep.track import open_tracker
from myna.train.laid_out import LaidOut
from myna.train.machines.shard import is_sharded
from myna.train.recipe import Recipe
from myna.train.state import TrainState
from myna.train.step import Stepper


def open_saver(
    parts: RunParts,
    stepper: Stepper,
    files: dict[str, bytes],
    newest: Path | None,
    state: TrainState,
    on_exit: contextlib.ExitStack,
) -> Saver:
    """What writes checkpoints, and on the main rank sends copies of them.

    Args:
        newest: the run's newest checkpoint, if there is one.
        state: where the run stands, kept up to date by the loop.
    """
    call, run, say = parts.call, parts.run, parts.say

    def on_saved(snapshot: Snapshot, path: Path) -> None:
        state = snapshot.state
        run.append_metrics({"step": state.step, "tokens": state.tokens, "checkpoint": path.name})

    copier = Copier(call.copy_to, run, say) if call.copy_to is not None and parts.ranks.is_main else None
    saver = Saver(
        run.checkpoints,
        stepper.network,
        files,
        parts.tokenizer,
        Retention(call.keep_last, call.keep_every),
        say=say,
        on_saved=on_saved,
        copier=copier,
        newest=newest,
    )
    if parts.ranks.is_main:
        on_exit.enter_context(telling_what_is_safe(saver, state, parts.recipe.steps))
    on_exit.enter_context(saver)
    if newest is not None and copier is not None:
        copier.add(newest)
    return saver


@contextlib.contextmanager
def telling_what_is_safe(saver: Saver, state: TrainState, steps: int) -> Iterator[None]:
    """After the last step, an error of the block says where the weights are: what failed costs no training.

    Args:
        state: where the run stands.
        steps: of the run.
    """

    def where() -> str:
        if saver.newest is None:
            return f"the weights of step {steps} were not saved"
        if checkpoint_step(saver.newest) < steps:
            return f"the weights of step {steps} were not saved, and the newest checkpoint is {saver.newest}"
        return f"the weights are safe in {saver.newest}, and the same command makes up for the rest"

    try:
        yield
    except Stopped:
        raise
    except MynaError as error:
        if state.step >= steps:
            error.args = (f"{error}; {where()}",)
        raise
    except OSError as error:
        if state.step < steps:
            raise
        raise OutputError(f"{first_line(error)}; {where()}") from error


def open_records(parts: RunParts, recipe: Recipe, state: TrainState, on_exit: contextlib.ExitStack) -> Any:
    """Writes what the run is, and returns what keeps the values of a step: metrics.jsonl and a tracker."""
    if not parts.ranks.is_main:
        return keep_nothing
    run, call = parts.run, parts.call
    about = recipe.to_dict() | about_data(parts.data)
    before = parts.stored.recipe if parts.stored else {}
    extended_from = (
        before["steps"] if before.get("steps", recipe.steps) != recipe.steps and call.extend else None
    )
    extended_from = extended_from or before.get(EXTENDED_FROM)
    if extended_from:
        about[EXTENDED_FROM] = extended_from
    if laid := parts.laid or LaidOut.of(before):
        about[laid.by] = laid.to_dict()
    # The recipe comes last: it makes the folder a run, which one that a tracker refuses is not.
    tracker = open_tracker(call.track, run, recipe.to_dict(), state.step)
    on_exit.callback(tracker.close)
    run.write_environment(environment(parts.ranks, parts.precision))
    run.write_recipe(about)

    def record(step: int, tokens: int, values: dict[str, float]) -> None:
        run.append_metrics({"step": step, "tokens": tokens} | values)
        tracker.record(step, values)

    return record


def keep_nothing(step: int, tokens: int, values: dict[str, float]) -> None:
    """For a rank that doesn't write, and a run that is finished."""


def checkpoint_bytes(stepper: Stepper) -> int:
    """About what a checkpoint takes on the disk: weights, their average, the optimizer's state; the rest is small."""
    weights = 4 * stepper.network.n_parameters()
    state = stepper.optimizer.memory_bytes() * (
        stepper.ranks.world_size if is_sharded(stepper.network) else 1
    )
    return weights * (2 if stepper.average else 1) + state
