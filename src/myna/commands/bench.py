"""`myna bench`: the lecture's speed ladder on this machine, a rung at a time; or ways to compute attention."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from myna.bench.ladder import OURS, Rung, chosen, why_only_ours
from myna.bench.measure import Plan
from myna.commands import parse, refuse_empty
from myna.commands.out import folder_of_results
from myna.errors import UsageError
from myna.recipes import named, vocab_size
from myna.settings import NO_OPTIONS, CompileBy, DeviceName, PrecisionName, flag
from myna.train.machines.torchrun import once_a_machine, process_environment, read_place
from myna.train.optimizers import optimizer_kind
from myna.train.recipe import Recipe

FILES = ("ladder.json", "ladder.png")
MOST_TOKENS = 1 << 26  # a step: 128 times GPT-2's batch
OF_THE_LADDER = (
    "network",
    "optimizer",
    "layers",
    "micro_batch",
    "sequence_length",
    "accumulate",
    "rungs",
    "compile_by",
)


@dataclass(frozen=True)
class Bench:
    """Measure the lecture's speed ladder on this machine: fp32, TF32, fp16, bf16, compile, flash attention, padded
    vocabulary, fused AdamW, and then what `myna train` runs. Each rung keeps the changes before it and adds its own;
    all compute the same loss. The lecture's rungs are GPT-2 with AdamW; another network or optimizer has the last rung
    alone. Writes ladder.json and ladder.png.

    Under torchrun, measures our step on its ranks instead: tokens a second of all together, and the share of a step
    that the sum of the gradients takes. Every rank computes --accumulate micro-batches. Writes ranks.json.

    With --attention, measures ways to compute attention instead: the four operations written out, PyTorch's call, what
    `myna train` runs, and FlashAttention's recurrence in plain torch; time and memory, forward and backward, over the
    length of the sequences. Writes attention.json and attention.png."""

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
    """Timed steps of a rung, after 3 that are not; their median counts. With --attention: timed passes; the best
    counts."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    rungs: str | None = None
    """Names of the rungs to measure, with commas between: fp32, tf32, fp16, bf16, compile, flash-attention,
    padded-vocabulary, fused-adamw, ours. Default: all. One that is left out stays in those after it.
    Another network or optimizer has ours alone."""
    precision: PrecisionName | None = None
    """Precision of the rung ours, and of --attention. Default: the recipe's. The other rungs have their own."""
    compile_by: CompileBy = "auto"
    """What the rung ours compiles: its blocks, one by one, or the network in one piece. auto: the network on a GPU, the
    blocks elsewhere, as `myna train` does."""
    attention: bool = False
    """Measure ways to compute attention, in the recipe's shape, in place of the ladder."""
    lengths: str | None = None
    """With --attention: lengths of the sequences, with commas between. Default: 256,512,1024,2048,4096. Every length
    gets the same number of tokens, 4,096 on a CPU and 16,384 on a GPU, or one sequence where it is longer."""
    out: Path = Path("bench")
    """Folder for the JSON and the picture. Those that are there are replaced."""
    json: bool = False
    """Print the JSON in place of the table."""


def main(args: Sequence[str]) -> None:
    """Runs `myna bench`."""
    environ = process_environment()
    with once_a_machine(environ):
        refuse_empty(args)
        call = parse(Bench, args, command="bench")
        several = read_place(environ).world_size > 1
        plan = None if call.attention else plan_of(call, several)
        if several and call.attention:
            raise UsageError("--attention is measured by one process; start it without torchrun")
    if plan is None:
        refuse_the_ladders(call)
        from myna.commands.bench_attention import Call, run

        recipe = with_precision(named(call.recipe), call)
        run(Call(recipe, call.lengths, call.steps, call.device, call.out, call.json))
    elif several:
        from myna.commands.bench_ranks import run as run_ranks

        run_ranks(plan, environ, call.out, json=call.json)
    else:
        climb(plan, call)


def plan_of(call: Bench, several: bool) -> Plan:
    """What a call without --attention asks to be measured.

    Args:
        several: ranks, which have the rung ours alone.
    Raises:
        UsageError: a recipe, rung or number that cannot be.
    """
    if call.lengths is not None:
        raise UsageError(
            "--lengths is of --attention; give --attention too, or --sequence-length for the ladder"
        )
    recipe = measured_recipe(call)
    why = "several ranks measure our step alone" if several else why_only_ours(recipe)
    rungs = chosen(call.rungs, why)
    refuse_ours(call, recipe, rungs)
    return Plan(
        recipe,
        vocab_size(recipe),
        rungs,
        call.micro_batch,
        call.accumulate,
        call.steps,
        call.device,
        call.compile_by,
    )


def climb(plan: Plan, call: Bench) -> None:
    """Measures the rungs, writes both files, and prints the table or the JSON."""
    from myna.bench.measure import measure_ladder
    from myna.bench.progress import shown
    from myna.files import json_bytes, write_atomic

    with folder_of_results(call.out, FILES), shown(len(plan.rungs), call.steps) as watcher:
        ladder = measure_ladder(plan, watcher)
    from myna.bench.picture import picture
    from myna.bench.table import print_table

    for name, content in zip(FILES, (json_bytes(ladder), picture(ladder)), strict=True):
        write_atomic(call.out / name, content)
    if call.json:
        sys.stdout.buffer.write(json_bytes(ladder))
    else:
        print_table(ladder, call.out)


def refuse_the_ladders(call: Bench) -> None:
    """
    Raises:
        UsageError: `--attention`, and a flag that only the ladder has.
    """
    defaults = {field.name: field.default for field in fields(Bench)}
    for name in OF_THE_LADDER:
        if getattr(call, name) != defaults[name]:
            raise UsageError(f"{flag(name)} is of the ladder; leave it out with --attention")


def refuse_ours(call: Bench, recipe: Recipe, rungs: Sequence[Rung]) -> None:
    """
    Raises:
        UsageError: a flag of the rung ours, which is not measured or not compiled.
    """
    for name, default in (("precision", None), ("compile_by", "auto")):
        if getattr(call, name) != default and OURS not in [rung.name for rung in rungs]:
            raise UsageError(f"{flag(name)} is of the rung {OURS}; leave it out, or add {OURS} to --rungs")
    if call.compile_by != "auto" and not recipe.compile:
        raise UsageError(
            f"--compile-by is {call.compile_by}, and {recipe.name} does not compile; leave it out"
        )


def with_precision(recipe: Recipe, call: Bench) -> Recipe:
    """The recipe with the call's precision."""
    return recipe if call.precision is None else replace(recipe, precision=call.precision)


def measured_recipe(call: Bench) -> Recipe:
    """The recipe with what the call changes in it.

    Raises:
        UsageError: there is no such recipe, or a number that cannot be.
    """
    recipe = with_precision(with_kinds(named(call.recipe), call), call)
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
        # The recipe's learning rate is its own optimizer's. With pydoc's 0.028, AdamW's rungs differed by 4e-4 nats
        # after six steps; with 0.006 by 3e-6.
        low, high = optimizer_kind(call.optimizer).rates
        rate = min(max(recipe.learning_rate, low), high)
        recipe = replace(recipe, optimizer=call.optimizer, optimizer_options=NO_OPTIONS, learning_rate=rate)
    return recipe
