"""`myna bench`: the lecture's speed ladder on this machine, a rung at a time."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from myna.bench.ladder import chosen, why_only_ours
from myna.commands import parse, refuse_empty
from myna.errors import OutputError, UsageError
from myna.recipes import named, vocab_size
from myna.settings import NO_OPTIONS, DeviceName
from myna.train.recipe import Recipe

FILES = ("ladder.json", "ladder.png")
MOST_TOKENS = 1 << 26  # a step: 128 times GPT-2's batch


@dataclass(frozen=True)
class Bench:
    """Measure the lecture's speed ladder on this machine: fp32, TF32, bf16, compile, flash attention, padded
    vocabulary, fused AdamW, and then what `myna train` runs. Each rung keeps the changes before it and adds its own;
    all compute the same loss. The lecture's rungs are GPT-2 with AdamW; another network or optimizer has the last rung
    alone. Writes ladder.json and ladder.png."""

    recipe: str = "gpt2-124m"
    """Whose network, sequence length and optimizer to measure: any recipe of `myna train`. Dropout is off."""
    network: str | None = None
    """Another network in the recipe's shape, by its name. Default: the recipe's."""
    optimizer: str | None = None
    """Another optimizer, by its name. Default: the recipe's."""
    layers: int | None = None
    """Layers, to make it short. Default: the recipe's."""
    micro_batch: Literal["auto"] | int = "auto"
    """Sequences computed at once, the same on all rungs; auto: 2,048 tokens of them on a CPU, on a GPU the largest
    power of two with which every rung fits its memory."""
    sequence_length: int | None = None
    """Tokens in a sequence. Default: the recipe's."""
    accumulate: int = 1
    """Micro-batches in a step."""
    steps: int = 5
    """Timed steps of a rung, after 3 that are not; their median counts."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    rungs: str | None = None
    """Names of the rungs to measure, with commas between: fp32, tf32, bf16, compile, flash-attention,
    padded-vocabulary, fused-adamw, ours. Default: all. One that is left out stays in those after it.
    Another network or optimizer has ours alone."""
    out: Path = Path("bench")
    """Folder for ladder.json and ladder.png. Those that are there are replaced."""
    json: bool = False
    """Print the JSON in place of the table."""


def main(args: Sequence[str]) -> None:
    """Runs `myna bench`."""
    refuse_empty(args)
    call = parse(Bench, args, command="bench")
    recipe = measured_recipe(call)
    rungs = chosen(call.rungs, why_only_ours(recipe))
    from myna.bench.measure import Plan, measure_ladder
    from myna.bench.progress import shown
    from myna.files import json_bytes, write_atomic

    plan = Plan(recipe, vocab_size(recipe), rungs, call.micro_batch, call.accumulate, call.steps, call.device)
    with folder_of_results(call.out), shown(len(rungs), call.steps) as watcher:
        ladder = measure_ladder(plan, watcher)
    from myna.bench.picture import picture
    from myna.bench.table import print_table

    for name, content in zip(FILES, (json_bytes(ladder), picture(ladder)), strict=True):
        write_atomic(call.out / name, content)
    if call.json:
        sys.stdout.buffer.write(json_bytes(ladder))
    else:
        print_table(ladder, call.out)


@contextlib.contextmanager
def folder_of_results(path: Path) -> Iterator[None]:
    """Makes the folder before the block, which takes long; where the block fails, what it made goes again.

    Raises:
        OutputError: it can't be made, or not written to.
    """
    from myna.files import ensure_writable_directory

    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    ensure_writable_directory(path)
    for name in FILES:
        if (path / name).is_dir():
            raise OutputError(f"{path / name} is a folder, where a file is to be written; give another --out")
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()
        raise


def measured_recipe(call: Bench) -> Recipe:
    """The recipe with what the call changes in it.

    Raises:
        UsageError: there is no such recipe, or a number that cannot be.
    """
    recipe = with_kinds(named(call.recipe), call)
    for name in ("layers", "sequence_length", "accumulate", "steps", "micro_batch"):
        value = getattr(call, name)
        if value not in (None, "auto") and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    length = call.sequence_length or recipe.sequence_length
    if length > recipe.block_size:
        raise UsageError(
            f"--sequence-length is {length}; give at most {recipe.block_size}, the positions of {recipe.name}"
        )
    at_once = 1 if call.micro_batch == "auto" else call.micro_batch
    if call.accumulate * at_once * length > MOST_TOKENS:
        raise UsageError(
            f"{call.accumulate:,} micro-batches of {at_once:,} x {length} tokens are more than {MOST_TOKENS:,} a step; "
            "lower --accumulate or --micro-batch"
        )
    # As many tokens a step as the recipe has, but whole sequences: how many are measured at once is the call's to say.
    batch_tokens = max(1, recipe.batch_tokens // length) * length
    return replace(
        recipe,
        n_layer=call.layers or recipe.n_layer,
        sequence_length=length,
        batch_tokens=batch_tokens,
        dropout=0.0,
    )


def with_kinds(recipe: Recipe, call: Bench) -> Recipe:
    """The recipe with the call's network and optimizer; another one has its own default options.

    Raises:
        UsageError: there is none of that name.
    """
    if call.network not in (None, recipe.network):
        recipe = replace(recipe, network=call.network, network_options=NO_OPTIONS)
    if call.optimizer not in (None, recipe.optimizer):
        recipe = replace(recipe, optimizer=call.optimizer, optimizer_options=NO_OPTIONS)
    return recipe
