"""The start of `myna train`: the folder, the machine, the step, where the run stands; and all of it put together."""

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from myna.commands.train_evaluations import Around, evaluations
from myna.commands.train_init import take_weights
from myna.commands.train_minutes import Trial, choose_steps
from myna.commands.train_records import checkpoint_bytes, keep_nothing, open_records, open_saver
from myna.commands.train_setting import Setting
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
from myna.train.keep.checkpoints import Checkpoints, load_checkpoint
from myna.train.keep.saver import Saver
from myna.train.keep.snapshot import Camera
from myna.train.loop import Plan, Training
from myna.train.machines.allocator import keep_freed_memory
from myna.train.machines.ranks import Ranks
from myna.train.machines.speed import peak_flops
from myna.train.machines.watch import Watch
from myna.train.memory import explained_memory
from myna.train.micro_batch import MicroBatch, accumulation, choose_micro_batch
from myna.train.recipe import Recipe
from myna.train.schedule import learning_rate
from myna.train.spike import SpikeRule
from myna.train.state import TrainState
from myna.train.step import Batch, Stepper


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
    apply_precision(precision, ranks.device)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    return precision


def begin(setting: Setting, newest: Path | None, ending: contextlib.ExitStack, watch: Watch) -> Training:
    """The training, whole, standing where the newest checkpoint left it.

    Args:
        newest: that checkpoint, if there is one.
        ending: gets what has to be closed at the end.
    """
    began = time.perf_counter()
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
    spikes = SpikeRule(call.on_spike, say)
    state = resumed(setting, newest, stepper, spikes, known)
    train_new_tokens_alone(setting, stepper, state)
    going_on = state.step < recipe.steps
    stream = stream_of(recipe, setting.dataset, tokenizer)
    first_batch = functools.partial(_first_batch, stream, ranks)
    micro_batch = settle_micro_batch(setting, stepper, sharded, first_batch)
    recipe = replace(recipe, micro_batch=micro_batch.sequences)
    accumulation(recipe, ranks.world_size)  # refuses a batch that doesn't divide
    batches = functools.partial(_batches, stream, recipe, ranks, micro_batch.sequences)
    if going_on and recipe.compile:
        say("compiling the training step")
        with explained_memory(lambda: "compiling", micro_batch.sequences):
            compile_or_say_why(stepper, first_batch(micro_batch.sequences), say)
    if call.minutes is not None and setting.stored is None:
        targets = stream.n_targets(0, recipe.batch_samples)
        rate = rate_of(recipe)(0)
        trial = Trial(recipe, stepper, wanted, whole_network, batches, targets, rate, began)
        with explained_memory(lambda: "measuring", micro_batch.sequences):
            laid = choose_steps(setting, trial)
        recipe = laid.over(recipe, call.given)
        wanted = [evaluation.laid_over(recipe) for evaluation in wanted]
        setting = replace(setting, recipe=recipe, laid=laid)
    due = Evaluations(wanted, whole_network, ranks, recipe.steps)
    saver = open_saver(setting, stepper, files, newest, state, ending)
    watch.finish_first(saver.wait)
    state.recipe = recipe.to_dict()
    plan = plan_of(recipe, stepper, stream, flops)
    if going_on:
        describe(setting, recipe, stream, micro_batch, stepper, saver)
        tell_of(stream, say)
    # A finished run stays as it is: this call may be another machine's, or another recipe's with --override.
    unfinished = going_on or due.missing(state.step)
    record = open_records(setting, recipe, state, ending) if unfinished else keep_nothing
    stepper.distribute()
    ending.enter_context(explained_memory(lambda: f"step {state.step + 1}", micro_batch.sequences))
    return Training(
        plan,
        state,
        stepper=stepper,
        batches=batches,
        evaluations=due,
        checkpoints=Checkpoints(Camera(network, stepper.optimizer, stepper.average, ranks), saver, ranks),
        spikes=spikes,
        record=record,
    )


def train_new_tokens_alone(setting: Setting, stepper: Stepper, state: TrainState) -> None:
    """Has the stepper train the rows of new tokens and nothing else, where the recipe says so.

    Raises:
        UsageError: the run began without new tokens.
    """
    if setting.recipe.train_only != "new-tokens":
        return
    if not 0 < state.init_ids < setting.tokenizer.n_vocab:
        raise UsageError(
            f"--train-only new-tokens: {setting.run.path} began without new tokens; leave it out"
        )
    stepper.first_new_row = state.init_ids


def plan_of(recipe: Recipe, stepper: Stepper, stream: Stream, flops_per_token: float) -> Plan:
    """The numbers of the loop.

    Raises:
        UsageError: the batch doesn't divide among the ranks and micro-batches.
    """
    ranks = stepper.ranks
    peak, _ = peak_flops(ranks.device, stepper.precision.dtype or torch.float32)
    mfu_per_rate = flops_per_token / (peak * ranks.world_size)
    accumulate = accumulation(recipe, ranks.world_size)
    return Plan(recipe, accumulate, rate_of(recipe), stream.n_targets, mfu_per_rate)


def rate_of(recipe: Recipe) -> Callable[[int], float]:
    """The learning rate of the update about to be made, by finished updates."""
    return functools.partial(
        learning_rate,
        peak=recipe.learning_rate,
        final_fraction=recipe.final_learning_rate_fraction,
        warmup_steps=recipe.warmup_steps,
        decay_steps=recipe.decay_steps or recipe.steps,
        decay=recipe.decay,
        constant_fraction=recipe.constant_fraction,
    )


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
