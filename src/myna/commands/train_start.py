"""The start of `myna train`: the folder, the machine, the step, where the run stands; and all of it put together."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from myna.commands.train_about import environment, trained_on
from myna.commands.train_call import EXTENDED_FROM, Say, Stored, TrainCall
from myna.commands.train_evaluations import Around, evaluations
from myna.commands.train_init import take_weights
from myna.commands.train_stream import stream_of, tell_of
from myna.data.batches import Stream, micro_batches
from myna.data.prefetch import Prefetcher
from myna.data.split import Dataset
from myna.device import Precision, apply_precision, device_name, processor_name, resolve_precision
from myna.errors import MynaError, OutputError, Stopped, UsageError, first_line
from myna.files import ensure_writable_directory, reading, remove_empty, sweep
from myna.model.checkpoint import checkpoint_step
from myna.model.weights import config_files
from myna.run import Run
from myna.text.tokenizer import Tokenizer
from myna.train.build import network_to_evaluate, new_network, new_stepper
from myna.train.compiling import compile_or_say_why
from myna.train.evaluations import Evaluations
from myna.train.keep.checkpoints import Checkpoints, load_checkpoint
from myna.train.keep.copies import Copier
from myna.train.keep.saver import Retention, Saver
from myna.train.keep.snapshot import Camera, Snapshot
from myna.train.keep.track import open_tracker
from myna.train.loop import Plan, Training
from myna.train.machines.allocator import keep_freed_memory
from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import is_sharded
from myna.train.machines.speed import peak_flops
from myna.train.machines.watch import Watch
from myna.train.memory import explained_memory
from myna.train.micro_batch import MicroBatch, accumulation, choose_micro_batch
from myna.train.recipe import Recipe
from myna.train.schedule import learning_rate
from myna.train.spike import SpikeRule
from myna.train.state import TrainState
from myna.train.step import Batch, Stepper


@dataclass(frozen=True)
class Setting:
    """What is settled before the network is built."""

    call: TrainCall
    run: Run
    recipe: Recipe
    stored: Stored | None  # where the folder holds a run already
    ranks: Ranks
    precision: Precision
    dataset: Dataset
    tokenizer: Tokenizer
    say: Say


def take_folder(run: Run, ending: contextlib.ExitStack) -> str:
    """Makes the run's folder, takes its lock until the end, and removes what a killed process left half-written.

    Where no run comes about in it, nothing is left of what was made.

    Raises:
        OutputError: it can't be written, holds something else, or another process trains there.
    """
    with reading(run.path):
        if (run.path / "dataset.json").exists():
            raise OutputError(f"{run.path} is a dataset; give another --out for the run")
        folders = (run.checkpoints, run.path, *run.path.parents)
        new = [folder for folder in folders if not folder.exists()]
        is_first = not (run.path / ".lock").exists()
    ensure_writable_directory(run.path)
    ending.enter_context(run.locked())
    sweep(run.path)
    sweep(run.checkpoints)

    def leave_nothing() -> None:
        if run.exists():
            return
        if is_first:
            with contextlib.suppress(OSError):
                (run.path / ".lock").unlink()
        remove_empty(new)

    ending.callback(leave_nothing)
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
    apply_precision(precision)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    return precision


def begin(setting: Setting, newest: Path | None, ending: contextlib.ExitStack, watch: Watch) -> Training:
    """The training, whole, standing where the newest checkpoint left it.

    Args:
        newest: that checkpoint, if there is one.
        ending: gets what has to be closed at the end.
    """
    call, recipe, ranks, say = setting.call, setting.recipe, setting.ranks, setting.say
    tokenizer, sharded = setting.tokenizer, call.shard == "fsdp"
    around = Around(recipe, setting.run, setting.dataset, tokenizer, ranks, setting.precision, call.hellaswag)
    wanted = evaluations(around)  # their files are read before anything is written
    network = new_network(recipe, tokenizer.n_vocab, ranks.device, sharded=sharded)
    known = take_weights(network, recipe, say) if newest is None and recipe.init else 0
    network.recompute = call.activation_checkpointing
    files, flops = config_files(network, tokenizer), network.flops_per_token(recipe.sequence_length)
    stepper = new_stepper(recipe, network, ranks, setting.precision, sharded=sharded)
    whole_network = functools.partial(network_to_evaluate, recipe, tokenizer.n_vocab, stepper)
    due = Evaluations(wanted, whole_network, ranks, recipe.steps)
    spikes = SpikeRule(call.on_spike, say)
    state = resumed(setting, newest, stepper, spikes, known)
    if recipe.train_only == "new-tokens":
        if not 0 < state.init_ids < tokenizer.n_vocab:
            raise UsageError(
                f"--train-only new-tokens: {setting.run.path} began without new tokens; leave it out"
            )
        stepper.first_new_row = state.init_ids
    going_on = state.step < recipe.steps
    stream = stream_of(recipe, setting.dataset, tokenizer)
    first_batch = functools.partial(_first_batch, stream, ranks)
    micro_batch = settle_micro_batch(setting, stepper, sharded, first_batch)
    recipe = replace(recipe, micro_batch=micro_batch.sequences)
    saver = open_saver(setting, stepper, files, newest, state, ending)
    watch.finish_first(saver.wait)
    state.recipe = recipe.to_dict()
    plan = plan_of(recipe, stepper, stream, flops)
    if going_on:
        describe(setting, recipe, stream, micro_batch, stepper, saver)
        tell_of(stream, say)
    # A finished run stays as it is: this call may be another machine's, or another recipe's with --override.
    unfinished = going_on or due.missing(state.step)
    record = open_records(setting, recipe, state, ending) if unfinished else _keep_nothing
    if going_on and recipe.compile:
        with explained_memory(lambda: "compiling", micro_batch.sequences):
            compile_or_say_why(stepper, first_batch(micro_batch.sequences), say)
    stepper.distribute()
    ending.enter_context(explained_memory(lambda: f"step {state.step + 1}", micro_batch.sequences))
    return Training(
        plan,
        state,
        stepper=stepper,
        batches=functools.partial(_batches, stream, recipe, ranks, micro_batch.sequences),
        evaluations=due,
        checkpoints=Checkpoints(Camera(network, stepper.optimizer, stepper.average, ranks), saver, ranks),
        spikes=spikes,
        record=record,
    )


def plan_of(recipe: Recipe, stepper: Stepper, stream: Stream, flops_per_token: float) -> Plan:
    """The numbers of the loop.

    Raises:
        UsageError: the batch doesn't divide among the ranks and micro-batches.
    """
    ranks = stepper.ranks
    peak, _ = peak_flops(ranks.device, stepper.precision.dtype or torch.float32)
    rate = functools.partial(
        learning_rate,
        peak=recipe.learning_rate,
        final_fraction=recipe.final_learning_rate_fraction,
        warmup_steps=recipe.warmup_steps,
        decay_steps=recipe.decay_steps or recipe.steps,
        decay=recipe.decay,
        constant_fraction=recipe.constant_fraction,
    )
    mfu_per_rate = flops_per_token / (peak * ranks.world_size)
    return Plan(recipe, accumulation(recipe, ranks.world_size), rate, stream.n_targets, mfu_per_rate)


def _first_batch(stream: Stream, ranks: Ranks, n: int) -> Batch:
    """The run's first n sequences, for trying the step out."""
    return tuple(torch.from_numpy(part.copy()).to(ranks.device) for part in stream.batch(0, n))


def _batches(stream: Stream, recipe: Recipe, ranks: Ranks, micro_batch: int, sample: int) -> Prefetcher:
    """This rank's micro-batches from a sample on."""
    batches = micro_batches(stream, sample, recipe.batch_samples, micro_batch, ranks.rank, ranks.world_size)
    return Prefetcher(batches, ranks.device)


def resumed(
    setting: Setting, newest: Path | None, stepper: Stepper, spikes: SpikeRule, init_ids: int
) -> TrainState:
    """Where the run stands: a new one's beginning, or its newest checkpoint, loaded.

    Args:
        init_ids: of a new one, see `TrainState`.
    Raises:
        UsageError: it was trained on other data, without `--override`.
        CheckpointError: it is not of this network and optimizer.
    """
    identity, ranks, say = setting.dataset.identity, setting.ranks, setting.say
    if newest is None:
        rng = {"seeded_by": "seed, step, rank", "seed": setting.recipe.seed}
        return TrainState(
            identity, setting.recipe.to_dict(), init_ids=init_ids, world_size=ranks.world_size, rng=rng
        )
    state = load_checkpoint(newest, stepper.network, stepper.optimizer, stepper.average)
    if state.dataset != identity:
        changed = f"dataset {state.dataset[:12]}, now {identity[:12]}"
        if not setting.call.override:
            raise UsageError(
                f"{newest} was trained on other data ({changed}); give the same --data or another --out, "
                "or go on with --override"
            )
        say(f"going on with other data: {changed}")
    if state.scaler:  # empty where it was off; then one that is on now begins as in a new run
        stepper.scaler.load_state_dict(state.scaler)
    spikes.load(state.spikes)
    if state.step < setting.recipe.steps:
        say(f"resuming after step {state.step} from {newest}")
    if state.world_size != ranks.world_size:
        say(f"ranks: {state.world_size} before, {ranks.world_size} now; the batches are the same")
    state.dataset, state.world_size = identity, ranks.world_size
    return state


def settle_micro_batch(
    setting: Setting, stepper: Stepper, sharded: bool, first_batch: Callable[[int], Batch]
) -> MicroBatch:
    """The micro-batch, and why that one. A resumed run keeps its own where the ranks divide it."""
    recipe, ranks, stored = setting.recipe, setting.ranks, setting.stored
    if recipe.micro_batch == "auto" and stored and recipe.batch_samples % ranks.world_size == 0:
        # On more ranks than before it may not divide their share: the nearest below that does.
        share, before = recipe.batch_samples // ranks.world_size, stored.micro_batch
        fitting = next(n for n in range(before, 0, -1) if share % n == 0)
        return MicroBatch(fitting, "as before" if fitting == before else f"{before} before")
    conditions = (
        f"{processor_name()}, {device_name(ranks.device)}, {stepper.precision.name}"
        f"{', recomputing' if stepper.network.recompute else ''}{', sharded' if sharded else ''}, "
        f"{setting.tokenizer.n_vocab} ids"
    )
    return choose_micro_batch(
        recipe, ranks, lambda n: stepper.try_out(first_batch(n)), conditions, setting.say
    )


def open_saver(
    setting: Setting,
    stepper: Stepper,
    files: dict[str, bytes],
    newest: Path | None,
    state: TrainState,
    ending: contextlib.ExitStack,
) -> Saver:
    """What writes checkpoints, and on the main rank sends copies of them.

    Args:
        newest: the run's newest checkpoint, if there is one.
        state: where the run stands, kept up to date by the loop.
    """
    call, run, say = setting.call, setting.run, setting.say

    def on_saved(snapshot: Snapshot, path: Path) -> None:
        state = snapshot.state
        run.append_metrics({"step": state.step, "tokens": state.tokens, "checkpoint": path.name})

    copier = Copier(call.copy_to, say) if call.copy_to is not None and setting.ranks.is_main else None
    saver = Saver(
        run.checkpoints,
        stepper.network,
        files,
        setting.tokenizer,
        Retention(call.keep_last, call.keep_every),
        say=say,
        on_saved=on_saved,
        copier=copier,
        newest=newest,
    )
    if setting.ranks.is_main:
        ending.enter_context(telling_what_is_safe(saver, state, setting.recipe.steps))
    ending.enter_context(saver)
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


def open_records(setting: Setting, recipe: Recipe, state: TrainState, ending: contextlib.ExitStack) -> Any:
    """Writes what the run is, and returns what keeps the values of a step: metrics.jsonl and a tracker."""
    if not setting.ranks.is_main:
        return _keep_nothing
    run, call = setting.run, setting.call
    about = recipe.to_dict() | {"trained_on": [trained_on(setting.dataset)]}
    before = setting.stored.recipe if setting.stored else {}
    extended_from = (
        before["steps"] if before.get("steps", recipe.steps) != recipe.steps and call.extend else None
    )
    extended_from = extended_from or before.get(EXTENDED_FROM)
    if extended_from:
        about[EXTENDED_FROM] = extended_from
    # The recipe comes last: it makes the folder a run, which one that a tracker refuses is not.
    tracker = open_tracker(call.track, run, recipe.to_dict(), state.step)
    ending.callback(tracker.close)
    run.write_environment(environment(setting.ranks, setting.precision))
    run.write_recipe(about)

    def record(step: int, tokens: int, values: dict[str, float]) -> None:
        run.append_metrics({"step": step, "tokens": tokens} | values)
        tracker.record(step, values)

    return record


def _keep_nothing(step: int, tokens: int, values: dict[str, float]) -> None:
    """For a rank that doesn't write, and a run that is finished."""


def describe(
    setting: Setting,
    recipe: Recipe,
    stream: Stream,
    micro_batch: MicroBatch,
    stepper: Stepper,
    saver: Saver,
) -> None:
    """The run in three lines, before it begins."""
    say, train = setting.say, setting.dataset.train
    epochs = recipe.steps * recipe.batch_samples / stream.windows_per_epoch
    say(
        f"{recipe.name}: {stepper.network.n_parameters():,} parameters, {train.n_tokens:,} training tokens, "
        f"{epochs:.2f} epochs in {recipe.steps:,} steps of {recipe.batch_tokens:,} tokens"
    )
    if epochs > 1:
        say(f"the data will be gone through {epochs:.1f} times, in another order each time")
    precision = stepper.precision
    say(
        f"on {device_name(setting.ranks.device)}, {precision.name} ({precision.reason}), "
        f"micro-batch {micro_batch.sequences} ({micro_batch.reason})"
    )
    every = recipe.checkpoint_every or recipe.steps
    needed = saver.retention.most(recipe.steps, every) * checkpoint_bytes(stepper)
    free = setting.run.free_bytes()
    if setting.ranks.is_main and needed > free:
        say(
            f"the checkpoints will take up to {needed / 1e9:.1f} GB, and {setting.run.path} has {free / 1e9:.1f} GB "
            "left; --keep-last N keeps fewer"
        )


def checkpoint_bytes(stepper: Stepper) -> int:
    """About what a checkpoint takes on the disk: weights, their average, the optimizer's state; the rest is small."""
    weights = 4 * stepper.network.n_parameters()
    state = stepper.optimizer.memory_bytes() * (
        stepper.ranks.world_size if is_sharded(stepper.network) else 1
    )
    return weights * (2 if stepper.average else 1) + state
