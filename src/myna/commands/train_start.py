"""The start of `myna train`: the folder, the machine, the step, where the run stands; and all of it put together."""

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from myna.commands.train_describe import describe
from myna.commands.train_evaluations import Around, evaluations
from myna.commands.train_init import take_weights
from myna.commands.train_length import choose_epochs
from myna.commands.train_minutes import Trial, choose_steps
from myna.commands.train_overfit import one_batch_of
from myna.commands.train_parts import RunParts
from myna.commands.train_records import keep_nothing, open_records, open_saver
from myna.commands.train_standing import resumed
from myna.commands.train_stream import stream_of, tell_of
from myna.data.batches import Stream, micro_batches
from myna.data.prefetch import Prefetcher
from myna.device import Precision, apply_precision, device_name, processor_name, resolve_precision
from myna.errors import OutputError, UsageError
from myna.files import ensure_writable_directory, reading, remove_empty, sweep
from myna.model.weights import config_files
from myna.run import Run
from myna.train.build import network_to_evaluate, new_network, new_stepper
from myna.train.compiling import compile_or_say_why
from myna.train.evaluations import Evaluations
from myna.train.keep.checkpoints import Checkpoints, kept_words
from myna.train.keep.snapshot import Camera
from myna.train.laid_out import LaidOut
from myna.train.loop import Plan, Training
from myna.train.machines.allocator import keep_freed_memory
from myna.train.machines.ranks import Ranks
from myna.train.machines.speed import peak_flops
from myna.train.machines.watch import Watch
from myna.train.memory import explained_memory, memory_advice
from myna.train.micro_batch import MicroBatch, accumulation, choose_micro_batch
from myna.train.recipe import Recipe
from myna.train.schedule import rate_of
from myna.train.spike import SpikeRule
from myna.train.state import TrainState
from myna.train.step import Batch, Stepper


def take_folder(run: Run, on_exit: contextlib.ExitStack) -> str:
    """Makes the run's folder, takes its lock until the end, and removes what a killed process left half-written.

    Where no run comes about in it, nothing is left of what was made.

    Raises:
        OutputError: it can't be written, holds something else, or another process trains there.
    """
    with reading(run.path):
        if (run.path / "dataset.json").exists():
            raise OutputError(f"{run.path} is a dataset; give another --out for the run")
        if why := run.why_no_model():
            raise OutputError(f"{why}; give another --out for the run")
        folders = (run.checkpoints, run.path, *run.path.parents)
        new = [folder for folder in folders if not folder.exists()]
        is_first = not (run.path / ".lock").exists()
    ensure_writable_directory(run.path)
    on_exit.enter_context(run.locked())
    sweep(run.path)
    sweep(run.checkpoints)

    def leave_nothing() -> None:
        if run.exists():
            return
        if is_first:
            with contextlib.suppress(OSError):
                (run.path / ".lock").unlink()
        remove_empty(new)

    on_exit.callback(leave_nothing)
    return ""


def try_checkpoints(run: Run) -> str:
    """Makes the folder of the checkpoints, and proves that files can be written there; it may be another disk's.

    Raises:
        OutputError: they can't.
    """
    ensure_writable_directory(run.checkpoints)
    return ""


def settle_machine(recipe: Recipe, shard: str, ranks: Ranks) -> Precision:
    """The precision, with this process set up for it.

    Raises:
        DeviceError: the device can't do it. UsageError: fp16 of a sharded network.
    """
    precision = resolve_precision(recipe.precision, ranks.device)
    if shard == "fsdp" and recipe.train_only != "all":
        raise UsageError("--shard fsdp cannot train new tokens alone; use --shard ddp")
    if shard == "fsdp" and precision.name == "fp16":
        raise UsageError(
            "--shard fsdp cannot scale fp16's losses: each rank would see its own overflows; use --precision fp32 or "
            "bf16, or --shard ddp"
        )
    apply_precision(precision, ranks.device)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    return precision


def begin(parts: RunParts, newest: Path | None, on_exit: contextlib.ExitStack, watch: Watch) -> Training:
    """The training, whole, standing where the newest checkpoint left it.

    Args:
        newest: that checkpoint, if there is one.
        on_exit: gets what has to be closed at the end.
    """
    began = time.perf_counter()
    call, recipe, ranks, say = parts.call, parts.recipe, parts.ranks, parts.say
    tokenizer, sharded = parts.tokenizer, call.shard == "fsdp"
    around = Around(recipe, parts.run, parts.data, tokenizer, ranks, parts.precision, call.hellaswag)
    wanted = evaluations(around)  # their files are read before anything is written
    network = new_network(recipe, tokenizer.n_vocab, ranks.device, sharded=sharded)
    known = take_weights(network, recipe, say) if newest is None and recipe.init else 0
    network.recompute = call.activation_checkpointing
    files, flops = config_files(network, tokenizer), network.flops_per_token(recipe.sequence_length)
    stepper = new_stepper(recipe, network, ranks, parts.precision, sharded=sharded)
    whole_network = functools.partial(network_to_evaluate, recipe, tokenizer.n_vocab, stepper)
    spikes = SpikeRule(call.on_spike, say)
    state = resumed(parts, newest, stepper, spikes, known)
    train_new_tokens_alone(parts, stepper, state)
    going_on = not state.is_done(recipe.steps)
    stream = stream_of(recipe, parts.data, tokenizer)
    stream, enough = one_batch_of(stream, recipe, say if going_on else lambda text: None)
    first_batch = functools.partial(_first_batch, stream, ranks)
    micro_batch = settle_micro_batch(parts, stepper, sharded, first_batch)
    recipe = replace(recipe, micro_batch=micro_batch.sequences)
    advice = _advice(parts, stepper, sharded, micro_batch.sequences)
    kept_before = functools.partial(kept_words, newest is not None)
    accumulation(recipe, ranks.world_size)  # refuses a batch that doesn't divide
    batches = functools.partial(_batches, stream, recipe, ranks, micro_batch.sequences)
    if going_on and recipe.compile:
        say("compiling the training step")
        with explained_memory(lambda: "compiling", advice, kept_before):
            compile_or_say_why(stepper, first_batch(micro_batch.sequences), say)
    if call.length is not None and parts.stored is None:
        targets = stream.n_targets(0, recipe.ramp.at(0))
        rate = rate_of(recipe)(0)
        trial = Trial(recipe, stepper, wanted, whole_network, batches, targets, rate, began)
        with explained_memory(lambda: "measuring", advice, kept_before):
            laid = choose_length(parts, trial, stream)
        recipe = laid.over(recipe, call.given)
        wanted = [evaluation.laid_over(recipe) for evaluation in wanted]
        parts = replace(parts, recipe=recipe, laid=laid)
    due = Evaluations(wanted, whole_network, ranks, recipe.steps)
    saver = open_saver(parts, stepper, files, newest, state, on_exit)
    watch.finish_first(saver.wait)
    state.recipe = recipe.to_dict()
    plan = plan_of(recipe, stepper, stream, flops)
    if going_on:
        describe(parts, recipe, stream, micro_batch, stepper, saver)
        tell_of(stream, say)
    # A finished run stays as it is: this call may be another machine's, or another recipe's with --override.
    unfinished = going_on or due.missing(state.step)
    record = open_records(parts, recipe, state, on_exit) if unfinished else keep_nothing
    stepper.distribute()
    camera = Camera(network, stepper.optimizer, stepper.average, ranks)
    checkpoints = Checkpoints(camera, saver, ranks, any_before=newest is not None)
    on_exit.enter_context(explained_memory(lambda: f"step {state.step + 1}", advice, checkpoints.kept))
    return Training(
        plan,
        state,
        stepper=stepper,
        batches=batches,
        evaluations=due,
        checkpoints=checkpoints,
        spikes=spikes,
        record=record,
        enough=enough,
    )


def choose_length(parts: RunParts, trial: Trial, stream: Stream) -> LaidOut:
    """The steps of a new run whose length is given in minutes or epochs.

    Raises:
        UsageError: not even a few steps fit into the minutes.
    """
    call = parts.call
    if call.epochs is not None:
        return choose_epochs(call.epochs, trial.recipe, stream, trial.evaluations, call.given, parts.say)
    return choose_steps(parts, trial)


def train_new_tokens_alone(parts: RunParts, stepper: Stepper, state: TrainState) -> None:
    """Has the stepper train the rows of new tokens and nothing else, where the recipe says so.

    Raises:
        UsageError: the run began without new tokens.
    """
    if parts.recipe.train_only != "new-tokens":
        return
    if not 0 < state.init_ids < parts.tokenizer.n_vocab:
        raise UsageError(f"--train-only new-tokens: {parts.run.path} began without new tokens; leave it out")
    stepper.first_new_row = state.init_ids


def plan_of(recipe: Recipe, stepper: Stepper, stream: Stream, flops_per_token: float) -> Plan:
    """The numbers of the loop.

    Raises:
        UsageError: the batch doesn't divide among the ranks and micro-batches.
    """
    ranks = stepper.ranks
    peak, _ = peak_flops(ranks.device, stepper.precision.dtype or torch.float32)
    mfu_per_token_per_s = flops_per_token / (peak * ranks.world_size)
    at_once = recipe.batch_samples // accumulation(recipe, ranks.world_size)
    return Plan(recipe, at_once, rate_of(recipe), stream.n_targets, mfu_per_token_per_s)


def _first_batch(stream: Stream, ranks: Ranks, n: int) -> Batch:
    """The run's first n sequences, for trying the step out."""
    return tuple(torch.from_numpy(part.copy()).to(ranks.device) for part in stream.batch(0, n))


def _batches(stream: Stream, recipe: Recipe, ranks: Ranks, micro_batch: int, sample: int) -> Prefetcher:
    """This rank's micro-batches from a sample on."""
    batches = micro_batches(stream, sample, recipe.ramp.at, micro_batch, ranks.rank, ranks.world_size)
    return Prefetcher(batches, ranks.device)


def settle_micro_batch(
    parts: RunParts, stepper: Stepper, sharded: bool, first_batch: Callable[[int], Batch]
) -> MicroBatch:
    """The micro-batch, and why that one. A resumed run keeps its own where the ranks divide it."""
    recipe, ranks, stored = parts.recipe, parts.ranks, parts.stored
    unit = recipe.ramp.unit
    if recipe.micro_batch == "auto" and stored and unit % ranks.world_size == 0:
        # On more ranks than before it may not divide their share: the nearest below that does.
        share, before = unit // ranks.world_size, stored.micro_batch
        fitting = next(n for n in range(before, 0, -1) if share % n == 0)
        return MicroBatch(fitting, "as before" if fitting == before else f"{before} before")
    conditions = (
        f"{processor_name()}, {device_name(ranks.device)}, {stepper.precision.name}"
        f"{', recomputing' if stepper.network.recompute else ''}{', sharded' if sharded else ''}, "
        f"{parts.tokenizer.n_vocab} ids"
    )
    advice = _advice(parts, stepper, sharded, micro_batch=1)
    return choose_micro_batch(
        recipe, ranks, lambda n: stepper.try_out(first_batch(n)), conditions, parts.say, advice
    )


def _advice(parts: RunParts, stepper: Stepper, sharded: bool, micro_batch: int) -> str:
    """What a person may try where memory runs out."""
    return memory_advice(
        parts.recipe,
        parts.ranks,
        parts.precision,
        micro_batch=micro_batch,
        recomputes=stepper.network.recompute,
        sharded=sharded,
    )
