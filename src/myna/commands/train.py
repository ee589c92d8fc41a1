"""`myna train`: composes the whole route, from a recipe's corpus to a report."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

from myna.commands import parse, refuse_empty
from myna.commands.train_call import (
    Say,
    TrainCall,
    description,
    given_fields,
    with_options_of,
)
from myna.commands.train_init import check_shape, started_from
from myna.commands.train_overfit import overfit_call
from myna.errors import MynaError
from myna.recipes import named
from myna.run import Run
from myna.signals import Interrupted
from myna.train.machines.torchrun import once_a_machine, process_environment, read_place

if TYPE_CHECKING:
    from myna.train.machines.ranks import Ranks
    from myna.train.machines.watch import Watch


def main(args: Sequence[str]) -> None:
    """See `TrainCall`."""
    environ = process_environment()
    with once_a_machine(environ):
        call = read_call(args)
        read_place(environ)
    from myna.progress import speak
    from myna.train.machines.ranks import start_ranks
    from myna.train.machines.watch import Watch

    with (
        what_is_saved_is_said(call),
        start_ranks(environ, call.device, call.timeout_s) as ranks,
        Watch(ranks, call.timeout_s) as watch,
    ):
        say: Say = speak if ranks.is_main else (lambda text: None)
        train(call, ranks, watch, say)


@contextlib.contextmanager
def what_is_saved_is_said(call: TrainCall) -> Iterator[None]:
    """A signal that ends the block learns what the same command would do: go on from a checkpoint, or begin anew."""
    try:
        yield
    except Interrupted as error:
        from myna.model.checkpoint import list_checkpoints

        with contextlib.suppress(MynaError, OSError):
            if list_checkpoints(run_of(call).checkpoints):
                error.same_command = "the same command goes on from the last checkpoint"
            # The copy on a store may hold checkpoints that this run has not fetched yet.
            elif call.copy_to is None:
                error.same_command = "no checkpoint was saved yet, so the same command begins the run anew"
        raise


def run_of(call: TrainCall) -> Run:
    """The run that a call trains."""
    return Run(call.out or Path("runs") / call.settings.name)


def read_call(args: Sequence[str]) -> TrainCall:
    """What the arguments ask for: a recipe's name, if it is there, and flags."""
    refuse_empty(args, but=("--sample-prompt",))
    recipe_given = bool(args) and not args[0].startswith("-")
    recipe = with_options_of(named(args[0] if recipe_given else "pydoc"), args)
    recipe = started_from(recipe, args)
    call = parse(
        TrainCall,
        args[1:] if recipe_given else args,
        command="train",
        default=TrainCall(settings=recipe),
        description=description(cleandoc(TrainCall.__doc__ or "")),
    )
    check_shape(call.settings, recipe)
    return overfit_call(dataclasses.replace(call, given=given_fields(args)))


def train(call: TrainCall, ranks: "Ranks", watch: "Watch", say: Say) -> None:
    """Takes the run's folder, settles recipe and precision, opens the data, begins or resumes, trains, and reports."""
    from myna.commands.train_copy import take_over
    from myna.commands.train_data import hellaswag_file, open_data
    from myna.commands.train_end import finish
    from myna.commands.train_overfit import finish_overfit
    from myna.commands.train_parts import RunParts
    from myna.commands.train_resume import settle_recipe
    from myna.commands.train_start import begin, settle_machine, take_folder, try_checkpoints
    from myna.commands.train_stream import run_tokenizer
    from myna.model.checkpoint import checkpoint_step
    from myna.train.keep.checkpoints import newest_on_main

    run = run_of(call)
    with contextlib.ExitStack() as on_exit:
        ranks.main_does(lambda: take_folder(run, on_exit))
        ranks.main_does(lambda: take_over(run, call, say))
        newest = newest_on_main(run, ranks, say)
        finished_steps = checkpoint_step(newest) if newest else None
        recipe, stored = settle_recipe(run, call, finished_steps, say)
        if finished_steps is None or finished_steps < recipe.steps:
            ranks.main_does(lambda: try_checkpoints(run))
        precision = settle_machine(recipe, call.shard, ranks)
        call = dataclasses.replace(call, hellaswag=hellaswag_file(call, ranks))
        data, tokenizer = open_data(call, recipe, ranks, say, begins=newest is None)
        tokenizer = run_tokenizer(recipe, data, tokenizer, stored)
        parts = RunParts(call, run, recipe, stored, ranks, precision, data, tokenizer, say)
        training = begin(parts, newest, on_exit, watch)
        whole = training.is_whole()
        if whole:
            say(
                f"{run.path} is finished: {training.state.step} of {recipe.steps} steps. Nothing is left to train."
            )
        else:
            training.train()
        if recipe.overfit:
            if ranks.is_main:
                finish_overfit(run, recipe, training.state.ended, say)
        elif ranks.is_main and not (whole and run.report_is_fresh()):
            finish(run, data, tokenizer, say)
