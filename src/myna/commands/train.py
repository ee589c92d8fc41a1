"""`myna train`: composes the whole route, from a recipe's corpus to a report."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myna.commands import parse
from myna.commands.train_call import TrainCall, stored_recipe
from myna.commands.train_data import dataset_identity, open_data
from myna.errors import ModelError, OutputError, UsageError
from myna.files import ensure_writable_directory, sweep
from myna.recipes import RECIPES, named
from myna.run import Run
from myna.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from myna.data.split import Dataset
    from myna.model.gpt2 import GPT
    from myna.text.tokenizer import Tokenizer
    from myna.train.copies import Copier
    from myna.train.loop import Hook, Training
    from myna.train.ranks import Precision, Ranks
    from myna.train.watch import Watch

Say = Callable[[str], None]


def main(args: Sequence[str]) -> None:
    """See `TrainCall`."""
    recipe_given = bool(args) and not args[0].startswith("-")
    recipe = named(args[0] if recipe_given else "pydoc")
    call = parse(
        TrainCall,
        args[1:] if recipe_given else args,
        command="train",
        default=TrainCall(settings=recipe),
        description=f"{cleandoc(TrainCall.__doc__ or '')}\n\nRecipes: {', '.join(RECIPES)}.",
    )
    from myna.train.progress import speak
    from myna.train.ranks import process_environment, start_ranks
    from myna.train.watch import Watch

    environ = process_environment()
    with (
        start_ranks(environ, call.device, call.timeout_s) as ranks,
        Watch(ranks, call.timeout_s) as watch,
    ):
        say: Say = speak if ranks.is_main else (lambda text: None)
        train(call, ranks, watch, say)


def train(call: TrainCall, ranks: "Ranks", watch: "Watch", say: Say) -> None:
    """The route: data, model, step, loop, report."""
    from myna.data.batches import TrainStream
    from myna.train.allocator import keep_freed_memory
    from myna.train.loop import Training, compile_or_say_why
    from myna.train.memory import explained_memory
    from myna.train.ranks import apply_precision, resolve_precision
    from myna.train.saver import Retention, Saver
    from myna.train.spike import SpikeRule
    from myna.train.track import open_tracker

    run = Run(call.out or Path("runs") / call.settings.name)
    if (run.path / "dataset.json").exists():
        raise OutputError(f"{run.path} is a dataset; give another --out for the run")
    stored = stored_recipe(run, call, say)
    recipe = call.settings
    precision = resolve_precision(recipe.precision, ranks.device)
    if call.shard == "fsdp" and precision.name == "fp16":
        raise UsageError(
            "--shard fsdp cannot scale fp16's losses: each rank would see its own overflows; use --precision fp32 or "
            "bf16, or --shard ddp"
        )
    apply_precision(precision)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    dataset, tokenizer = open_data(call, recipe, ranks, say)
    stream = TrainStream(dataset.train, recipe.sequence_length, recipe.seed)
    retention = Retention(call.keep_last, call.keep_every)
    model = new_model(recipe, tokenizer.n_vocab, ranks.device, sharded=call.shard == "fsdp")
    model.recompute = call.activation_checkpointing
    saver = Saver(run.checkpoints, tokenizer, retention, say)
    training = Training(
        model=model,
        recipe=recipe,
        run=run,
        stream=stream,
        dataset_id=dataset_identity(dataset),
        ranks=ranks,
        precision=precision,
        hooks=make_hooks(call, recipe, run, dataset, tokenizer, ranks, precision),
        saver=saver,
        spikes=SpikeRule(call.on_spike, say),
        sharded=call.shard == "fsdp",
    )
    recipe, why = settle_micro_batch(training, stored, say)
    with contextlib.ExitStack() as ending:
        ranks.main_does(lambda: take_folder(run, ending))
        watch.last_work = saver.wait
        if ranks.is_main:
            saver.copier = make_copier(call, say)
        ending.enter_context(saver)
        describe(recipe, why, dataset, training, say)
        newest = training.resume(say, call.override)
        if newest is not None and saver.copier is not None:
            saver.copier.add(newest)
        if training.finished_steps >= recipe.steps:
            say(
                f"{run.path} is finished: {training.finished_steps} of {recipe.steps} steps. Nothing is left to do."
            )
            return
        if ranks.is_main:
            run.write_recipe(recipe.to_dict())
            run.write_environment(environment(ranks, precision))
            training.tracker = open_tracker(call.track, run, recipe.to_dict(), training.finished_steps)
            ending.callback(training.tracker.close)
        if recipe.compile:
            with explained_memory("compiling", training.micro_batch):
                compile_or_say_why(training.stepper, training.first_batch(training.micro_batch), say)
        training.train()
        if ranks.is_main:
            finish(run, dataset, tokenizer, say)


def take_folder(run: Run, ending: contextlib.ExitStack) -> str:
    """Makes the run's folder, takes its lock until the end, and removes what a killed process left half-written."""
    ensure_writable_directory(run.path)
    ending.enter_context(run.locked())
    sweep(run.path)
    sweep(run.checkpoints)
    return ""


def make_copier(call: TrainCall, say: Say) -> "Copier | None":
    """What sends checkpoints to `--copy-to`, if that was given."""
    from myna.train.copies import Copier

    return None if call.copy_to is None else Copier(call.copy_to, say)


def describe(recipe: Recipe, why: str, dataset: "Dataset", training: "Training", say: Say) -> None:
    """The run in three lines, before it begins.

    Args:
        why: this micro-batch.
    """
    from myna.train.flops import count_parameters
    from myna.train.saver import checkpoint_bytes

    n_parameters = count_parameters(training.model)
    epochs = recipe.steps * recipe.batch_tokens / dataset.train.n_tokens
    say(
        f"{recipe.name}: {n_parameters:,} parameters, {dataset.train.n_tokens:,} training tokens, "
        f"{epochs:.2f} epochs in {recipe.steps:,} steps of {recipe.batch_tokens:,} tokens"
    )
    if epochs > 1:
        say(f"the data will be gone through {epochs:.1f} times, in another order each time")
    precision = training.stepper.precision
    say(
        f"on {device_name(training.ranks.device)}, {precision.name} ({precision.reason}), "
        f"micro-batch {recipe.micro_batch} ({why})"
    )
    every = recipe.checkpoint_every or recipe.steps
    steps = sorted({*range(every, recipe.steps + 1, every), recipe.steps})
    needed = len(training.saver.retention.kept(steps)) * checkpoint_bytes(
        n_parameters, training.average is not None
    )
    free = training.run.free_bytes()
    if training.ranks.is_main and needed > free:
        say(
            f"the checkpoints will take up to {needed / 1e9:.1f} GB, and {training.run.path} has {free / 1e9:.1f} GB "
            "left; --keep-last N keeps fewer"
        )


def new_model(recipe: Recipe, vocab_size: int, device: "torch.device", sharded: bool) -> "GPT":
    """Fresh weights: drawn on the CPU, so that a seed gives the same ones on every device."""
    import torch

    from myna.model.gpt2 import GPT
    from myna.train.memory import is_out_of_memory, require_room

    config = recipe.model_config(vocab_size)
    require_room(config, device, sharded=sharded)
    torch.manual_seed(recipe.seed)
    try:
        return GPT(config).to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"a model of {config.n_parameters:,} parameters ({4 * config.n_parameters / 1e9:,.1f} GB in fp32) does not "
            f"fit the memory that {device} has left; free some, or take fewer layers"
        ) from error


def settle_micro_batch(training: "Training", stored: dict[str, Any] | None, say: Say) -> tuple[Recipe, str]:
    """The training's recipe with a number where it says auto, and why that one.

    A resumed run keeps its own where the ranks divide it.
    """
    from myna.train.micro_batch import MicroBatch, choose_micro_batch
    from myna.train.ranks import processor_name

    recipe, world_size = training.recipe, training.ranks.world_size
    if recipe.micro_batch == "auto" and stored and recipe.batch_samples % world_size == 0:
        # On more ranks than before it may not divide their share: the nearest below that does.
        share = recipe.batch_samples // world_size
        before = stored["micro_batch"]
        fitting = next(n for n in range(before, 0, -1) if share % n == 0)
        chosen = MicroBatch(fitting, "as before" if fitting == before else f"{before} before")
    else:
        setting = (
            f"{processor_name()}, {device_name(training.ranks.device)}, {training.stepper.precision.name}"
            f"{', recomputing' if training.model.recompute else ''}{', sharded' if training.sharded else ''}, "
            f"{training.model.config.vocab_size} ids"
        )
        chosen = choose_micro_batch(recipe, training.ranks, training.try_out, setting, say)
    recipe = replace(recipe, micro_batch=chosen.sequences)
    training.settle(recipe)
    return recipe, chosen.reason


def make_hooks(
    call: TrainCall,
    recipe: Recipe,
    run: Run,
    dataset: "Dataset",
    tokenizer: "Tokenizer",
    ranks: "Ranks",
    precision: "Precision",
) -> "list[Hook]":
    """What runs during training. Each works on the network itself, compiled step or not."""
    from myna.evaluate.hellaswag import encode_items, hellaswag_scores, hellaswag_sums, read_items
    from myna.evaluate.loss import validation_scores, validation_sums
    from myna.generate.text import continue_text
    from myna.train.loop import Hook

    share: dict[str, Any] = {
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "autocast_dtype": precision.dtype,
    }
    id_bytes = tokenizer.id_bytes()

    def validate(model: "GPT", step: int) -> dict[str, float]:
        sums = validation_sums(model, dataset.val, id_bytes, sequence_length=recipe.sequence_length, **share)
        return validation_scores(added(sums, ranks))

    def sample(model: "GPT", step: int) -> None:
        if ranks.is_main:
            (text,) = continue_text(
                model,
                tokenizer,
                recipe.sample_prompt,
                max_tokens=100,
                temperature=recipe.sample_temperature,
                top_k=50,
                seed=recipe.seed,
                autocast_dtype=precision.dtype,
            )
            run.append_sample({"step": step, "prompt": recipe.sample_prompt, "text": text})

    hooks = [Hook(recipe.sample_every, sample)]
    if dataset.val.n_tokens > 1:
        hooks.insert(0, Hook(recipe.eval_every, validate))
    if call.hellaswag is not None:
        questions = encode_items(read_items(call.hellaswag), tokenizer, recipe.block_size)

        def score(model: "GPT", step: int) -> dict[str, float]:
            return hellaswag_scores(added(hellaswag_sums(model, questions, **share), ranks))

        hooks.append(Hook(recipe.hellaswag_every, score))
    return hooks


def added(sums: "torch.Tensor", ranks: "Ranks") -> "torch.Tensor":
    """Sums over the ranks: on the device for the network, then back on the CPU."""
    if ranks.world_size == 1:
        return sums
    return ranks.sum_(sums.to(ranks.device)).cpu()


def device_name(device: "torch.device") -> str:
    """The device for people."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def environment(ranks: "Ranks", precision: "Precision") -> dict[str, Any]:
    """What the run stands on: enough to tell why two runs differ."""
    from importlib.metadata import version

    import torch

    from myna.train.copies import without_secrets

    return {
        "myna": version("myna"),
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "device": device_name(ranks.device),
        "world_size": ranks.world_size,
        "precision": precision.name,
        "precision_reason": precision.reason,
        "command": [without_secrets(word) for word in sys.argv[1:]],
    }


def source_commit() -> str | None:
    """The commit of the checkout this code runs from; None where it is installed without one."""
    try:
        found = subprocess.run(
            ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def finish(run: Run, dataset: "Dataset", tokenizer: "Tokenizer", say: Say) -> None:
    """Draws the report, compares with bzip2, and says where everything lies and what to try next."""
    from myna.evaluate.compression import bz2_bits_per_byte
    from myna.evaluate.report import report
    from myna.model.checkpoint import list_checkpoints

    report([run.path], run.report_path)
    for sample in run.samples()[-1:]:
        say(f"\n{run.path} writes on:\n\n{sample['prompt']}{sample['text']}\n")
    reached = [record["val_bits_per_byte"] for record in run.metrics() if "val_bits_per_byte" in record]
    yardstick = bz2_bits_per_byte(dataset.val, tokenizer)
    if reached and yardstick:
        say(f"bits per byte of the validation text ({yardstick[1]:,} bytes):")
        say(f"  this model  {reached[-1]:.3f}\n  bz2 -9      {yardstick[0]:.3f}\n")
    say(f"checkpoint  {list_checkpoints(run.checkpoints)[0]}")
    say(f"metrics     {run.metrics_path}")
    if run.samples_path.exists():
        say(f"samples     {run.samples_path}")
    say(f"report      {run.report_path}\n")
    say("what to try next:")
    say(f'  myna sample {run.path} --prompt "The "')
    if dataset.val.n_tokens > 1:
        say(f"  myna eval {run.path} --task val --data {dataset.path}")
    say(f"  myna data show {dataset.path}")
