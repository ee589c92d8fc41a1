"""`myna train --overfit`: one batch again and again, until it is known by heart. It tests the setup; no real run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from myna.commands.train_call import Say, TrainCall
from myna.data.batches import Stream
from myna.data.one_batch import OneBatch
from myna.errors import UsageError
from myna.run import Run
from myna.settings import flag
from myna.train.recipe import Recipe

NEAR_ZERO_NATS = 0.01
SEQUENCES = 4  # the lecture's batch
STEPS = 1000
WARMUP_STEPS = 10
# Flags of a real run: its length in data, its order, and what is measured on other text.
NO_USE = ("minutes", "epochs", "extend", "order", "hellaswag", "batch_ramp_tokens")
MEASURED = ("eval_every", "sample_every", "hellaswag_every")


def overfit_call(call: TrainCall) -> TrainCall:
    """The call with the settings of `--overfit`, where it asks for that. What the person gave stays.

    Raises:
        UsageError: a flag that one batch has no use for.
    """
    recipe, given = call.settings, call.given
    if not recipe.overfit:
        return call
    useless = [name for name in NO_USE if name in given]
    useless += [name for name in MEASURED if name in given and getattr(recipe, name)]
    if useless:
        raise UsageError(
            f"--overfit trains on one batch alone, so it has no use for {flag(useless[0])}; leave it out"
        )
    sequences = recipe.micro_batch if recipe.micro_batch != "auto" else SEQUENCES
    wanted: dict[str, Any] = {
        "batch_tokens": min(recipe.batch_tokens, sequences * recipe.sequence_length),
        "steps": min(recipe.steps, STEPS),
        "warmup_steps": min(recipe.warmup_steps, WARMUP_STEPS),
        "batch_ramp_tokens": 0,
        "decay": "constant",
        "decay_steps": 0,
        "dropout": 0.0,
        "average_decay": 0.0,
        "checkpoint_every": 0,
    }
    wanted = {name: value for name, value in wanted.items() if name not in given}
    wanted |= dict.fromkeys(MEASURED, 0)
    out = call.out or Path("runs") / f"{recipe.name}-overfit"
    return replace(call, settings=replace(recipe, **wanted), out=out)


def one_batch_of(stream: Stream, recipe: Recipe, say: Say) -> tuple[Stream, Callable[[float], bool]]:
    """What is trained on, and at which loss of a step the run may end early: never, but for `--overfit`."""
    if not recipe.overfit:
        return stream, lambda loss: False
    batch = OneBatch(stream, recipe.batch_samples)
    least = batch.least_loss()
    limit = least + NEAR_ZERO_NATS
    alike = (
        f", since windows that begin alike can't be told apart: no model gets below {least:.4f}"
        if least
        else ""
    )
    say(
        f"--overfit: one batch of {recipe.batch_samples:,} sequences of {recipe.sequence_length:,} tokens, until its "
        f"loss is below {limit:.4f} nats{alike}; at most {recipe.steps:,} steps"
    )
    return batch, lambda loss: loss < limit


def finish_overfit(run: Run, recipe: Recipe, ended: bool, say: Say) -> None:
    """Draws the report, and says at which step the batch was known, or what it means that it is not.

    Args:
        ended: the run ended early, for its loss was near zero.
    """
    from myna.evaluate.report import report

    report([run.path], run.report_path)
    losses = [record for record in run.metrics() if "train_loss" in record]
    last = losses[-1]
    batch = f"{recipe.batch_samples:,} sequence{'s' * (recipe.batch_samples > 1)}"
    if ended:
        say(
            f"step {last['step']:,}: the loss is {last['train_loss']:.4f}, so the batch of {batch} is known by heart. "
            "Network, loss, gradients and optimizer work together. How well they learn from much text is another "
            "question: train without --overfit."
        )
    else:
        lowest = min(losses, key=lambda record: record["train_loss"])
        say(
            f"step {last['step']:,}: the loss is {last['train_loss']:.4f} (lowest: {lowest['train_loss']:.4f}, at step "
            f"{lowest['step']:,}), so the batch of {batch} is not known by heart. A sound setup gets there. Where the "
            "loss still falls, give more --steps. Else look, in this order:"
        )
        say(f"  the learning rate, {recipe.learning_rate:g}: try a tenth, and three times as much")
        say(f"  dropout, {recipe.dropout:g}: 0 for this test")
        say("  the batch: one sequence (--batch-tokens as --sequence-length), and a larger network")
        say(
            "  code that you changed: targets that are not the inputs one id on, a mask, a gradient that is cut off"
        )
    say(f"report      {run.report_path}")
