"""What `myna train` says of a run's length: the steps that were chosen, and the schedule laid over them."""

from collections.abc import Collection, Sequence

from myna.commands.train_call import Say
from myna.data.batches import Stream
from myna.settings import flag
from myna.train.evaluations import Evaluation
from myna.train.laid_out import LAID_OVER, LaidOut, steps_of_epochs
from myna.train.recipe import Recipe


def choose_epochs(
    epochs: float,
    recipe: Recipe,
    stream: Stream,
    evaluations: Sequence[Evaluation],
    given: Collection[str],
    say: Say,
) -> LaidOut:
    """The steps of a new run with `--epochs`, told.

    Args:
        recipe: as it was asked for.
        given: the fields that the person gave a number.
    """
    windows, ramp = stream.windows_per_epoch, recipe.ramp
    laid = LaidOut(epochs, recipe.steps, steps_of_epochs(epochs, windows, ramp), by="epochs")
    takes = f"{ramp.unit:,} to {ramp.full:,}" if ramp.over else f"{ramp.full:,}"
    say(
        f"{laid.as_given}: {laid.steps:,} steps, since an epoch is {windows:,} windows of {recipe.sequence_length:,} "
        f"tokens, and a step takes {takes}"
    )
    tell_schedule(recipe, laid.over(recipe, given), evaluations, say)
    return laid


def tell_schedule(before: Recipe, after: Recipe, evaluations: Sequence[Evaluation], say: Say) -> None:
    """Says which numbers of a schedule are others, now that it is laid over other steps.

    Args:
        evaluations: of this run; it has no use for the numbers of others.
    """
    used = {"warmup_steps", "decay_steps", "checkpoint_every", *(one.every for one in evaluations)}
    changed = [
        f"{flag(name)} {getattr(after, name):,} (was {getattr(before, name):,})"
        for name in LAID_OVER
        if name in used and getattr(after, name) != getattr(before, name)
    ]
    if changed:
        say(f"laid over {after.steps:,} steps, of {before.steps:,} in the recipe: {', '.join(changed)}")
