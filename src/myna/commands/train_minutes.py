"""`myna train --minutes N`: measures how fast this machine trains, and lays the recipe over the steps that fit."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from myna.commands.train_call import Say
from myna.commands.train_length import tell_schedule
from myna.commands.train_parts import RunParts
from myna.commands.train_records import checkpoint_bytes
from myna.device import device_name
from myna.errors import UsageError
from myna.model.network import Network
from myna.progress import counted
from myna.train.evaluations import Evaluation
from myna.train.laid_out import LaidOut
from myna.train.micro_batch import accumulation
from myna.train.minutes import (
    BESIDE_SHARE,
    LEAST_STEPS,
    Costs,
    Recurring,
    checkpoints_of,
    evaluations_of,
    lay_out,
    rounded_up,
)
from myna.train.pace import evaluation_seconds, forgotten, make_step, step_seconds
from myna.train.recipe import Recipe
from myna.train.step import Batch, Stepper

# The share of the minutes that goes into measuring the step, and each evaluation; and the most seconds it may take.
STEP_SHARE, STEP_MOST_S = 0.05, 20.0
EVALUATION_SHARE, EVALUATION_MOST_S = 0.01, 5.0
# What the steps lose to a checkpoint: its copy, and what its writing takes. GPT-2 124M's 1.5 GB took 3 to 10 s.
CHECKPOINT_BYTES_PER_S = 150e6
# The least minutes that a message names are some more than what was measured: the next measure differs a little.
MARGIN = 1.1


@dataclass(frozen=True)
class Trial:
    """What is measured: the parts of the run, built and whole, before step 1.

    Attributes:
        recipe: the recipe as it was asked for, with its micro-batch.
        evaluations: as often as that recipe says.
        network: gives the network to evaluate.
        batches: opens this rank's micro-batches from a sample on.
        targets: that count in the first step.
        learning_rate: of the first step.
        began: when the run began, by `time.perf_counter`: the minutes count from there.
    """

    recipe: Recipe
    stepper: Stepper
    evaluations: Sequence[Evaluation]
    network: Callable[[], AbstractContextManager[Network]]
    batches: Callable[[int], AbstractContextManager[Iterator[Batch]]]
    targets: int
    learning_rate: float
    began: float


def choose_steps(parts: RunParts, trial: Trial) -> LaidOut:
    """How many steps a new run makes in its `--minutes`: the main rank decides, and all take it.

    Raises:
        UsageError: not even a few steps fit; says the least minutes.
    """
    call, recipe, ranks, say = parts.call, trial.recipe, parts.ranks, parts.say
    minutes = call.minutes
    assert minutes is not None
    say(f"--minutes {minutes:g}: measuring how long a step and the evaluations take")
    costs = measured(trial, 60 * minutes)

    def choose() -> str:
        started = time.perf_counter() - trial.began
        laid = lay_out(minutes, recipe, call.given, costs, 60 * minutes - started)
        if laid.steps < LEAST_STEPS:
            least = replace(laid, steps=LEAST_STEPS).over(recipe, call.given)
            raise too_short(minutes, started, costs, least)
        tell(say, trial, laid, laid.over(recipe, call.given), costs, started)
        return f"{laid.steps} {laid.apart}"

    steps, apart = map(int, ranks.main_does(choose).split())
    return LaidOut(minutes, recipe.steps, steps, apart)


def measured(trial: Trial, seconds: float) -> Costs:
    """What the run's parts take. The run is afterwards as it was.

    Args:
        seconds: that the run is to take; a small share of them goes into this.
    """
    recipe, stepper, ranks = trial.recipe, trial.stepper, trial.stepper.ranks
    recurring = []
    with forgotten(stepper), trial.batches(0) as batches:

        def make(micro_batches: int) -> None:
            make_step(
                stepper, batches, micro_batches, targets=trial.targets, learning_rate=trial.learning_rate
            )

        step, steps = step_seconds(
            make, accumulation(recipe, ranks.world_size), ranks, min(STEP_MOST_S, STEP_SHARE * seconds)
        )
        for evaluation in trial.evaluations:
            if evaluation.every_steps:
                budget = min(EVALUATION_MOST_S, EVALUATION_SHARE * seconds)
                takes = evaluation_seconds(evaluation, trial.network, ranks, budget)
                recurring.append(Recurring(evaluation.name, takes, _times_of(evaluation)))
    saving = Recurring(
        "checkpoints",
        checkpoint_bytes(stepper) / CHECKPOINT_BYTES_PER_S,
        lambda recipe: checkpoints_of(recipe.checkpoint_every, recipe.steps),
    )
    return Costs(step, steps, (*recurring, saving))


def _times_of(evaluation: Evaluation) -> Callable[[Recipe], int]:
    return lambda recipe: evaluations_of(evaluation.laid_over(recipe).every_steps, recipe.steps)


def too_short(minutes: float, started: float, costs: Costs, least: Recipe) -> UsageError:
    """For minutes in which fewer steps fit than a run of the `least` length has."""
    beside = costs.beside(least)
    needs = rounded_up(MARGIN * (started + costs.whole(least)) / 60)
    return UsageError(
        f"--minutes {minutes:g} is too short: {least.steps} steps take {_s(least.steps * costs.step_seconds)} here, "
        f"their evaluations and checkpoints {_s(beside)}, and the start took {_s(started)}; give --minutes {needs:g} "
        "or more"
    )


def _s(seconds: float) -> str:
    """
    >>> _s(0.0123), _s(1234.5)
    ('0.012 s', '1,234 s')
    """
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def tell(say: Say, trial: Trial, laid: LaidOut, recipe: Recipe, costs: Costs, started: float) -> None:
    """How many steps were chosen, and why; and what the schedule is now."""
    ranks, before, minutes = trial.stepper.ranks, trial.recipe, laid.amount
    how = f"mean of {costs.measured_steps}" if costs.measured_steps else "by two shorter ones"
    where = device_name(ranks.device) if ranks.world_size == 1 else f"{ranks.world_size} ranks"
    if ranks.world_size > 1 and ranks.device.type == "cpu":
        where += f" of {counted(torch.get_num_threads(), 'thread')}"
    say(
        f"--minutes {minutes:g}: {recipe.steps:,} steps, since one takes {costs.step_seconds:.3g} s here ({how}; "
        f"{recipe.batch_tokens / costs.step_seconds:,.0f} tokens/s; {where})"
    )
    kept = ", ".join(
        f"{one.name} ({times} x {_s(one.seconds)})" for one in costs.recurring if (times := one.times(recipe))
    )
    say(
        f"of the {_s(60 * minutes)}, the start took {_s(started)}, and {_s(costs.beside(recipe))} are kept for {kept}"
    )
    tell_schedule(before, recipe, trial.evaluations, say)
    if laid.apart > 1:
        say(
            f"evaluations come {laid.apart} times as far apart as in the recipe: with the checkpoints they would take "
            f"more than {BESIDE_SHARE:.0%} of the time"
        )
