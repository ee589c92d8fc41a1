"""`myna plan`: hours, bytes and money of a training run on GPUs, computed from stated assumptions."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from myna.commands import parse, refuse_empty
from myna.errors import UsageError
from myna.recipes import named, vocab_size
from myna.settings import PrecisionName

if TYPE_CHECKING:
    from myna.plan.assumptions import Assumptions
    from myna.plan.run import Plan
    from myna.plan.table import Refused

MOST_ROWS = 400
MOST_GPUS = 1 << 20
MOST_BATCH_TOKENS = 1 << 32


@dataclass(frozen=True, kw_only=True)
class AssumptionFlags:
    """Numbers that a plan stands on. Their defaults are printed with it, each with its source."""

    peak_tflops: float | None = None
    """What one GPU computes at best, in TFLOP/s, dense. Default: its data sheet's, in --precision."""
    memory_gb: float | None = None
    """Memory of a GPU, in GB of 10^9 bytes. Default: its data sheet's."""
    bandwidth_gb_per_s: float | None = None
    """Bandwidth of that memory, in GB/s. Default: its data sheet's."""
    nvlink_gb_per_s: float | None = None
    """A GPU's NVLink in one direction, in GB/s. Default: its data sheet's."""
    pcie_gb_per_s: float | None = None
    """A GPU's PCI Express in one direction, in GB/s. Default: its data sheet's."""
    usd_per_gpu_hour: float | None = None
    """Price of a GPU for an hour, in USD."""
    mfu: float | None = None
    """Model FLOPs utilisation: the share of the peak that training reaches while no GPU waits for another, 0 to 1."""
    forward_mfu: float | None = None
    """The same of validation and HellaSwag."""
    link_efficiency: float | None = None
    """The share of a link's speed that sending reaches, 0 to 1."""
    gpus_per_machine: float | None = None
    """GPUs in a machine; more are joined by the network."""
    network_gbit_per_s: float | None = None
    """A machine's network in one direction, in Gbit/s, all cards together."""
    reserved_gb: float | None = None
    """Memory of a GPU that CUDA, NCCL and the allocator take, in GB."""
    bytes_per_token: float | None = None
    """Bytes of the corpus' text for each token."""
    download_bytes_per_token: float | None = None
    """Bytes to download for each token."""
    download_mb_per_s: float | None = None
    """Speed of the download, in MB/s."""
    prepare_mb_per_s: float | None = None
    """Text that one core tokenizes, in MB/s."""
    prepare_cores: float | None = None
    """Cores that prepare the corpus."""
    usd_per_core_hour: float | None = None
    """Price of one of these cores for an hour, in USD."""
    usd_per_gb_month: float | None = None
    """Price of storing a GB for a month, in USD."""
    months: float | None = None
    """Months for which shards and checkpoints are stored."""


@dataclass(frozen=True, kw_only=True)
class PlanCall:
    """Compute what a training run takes on GPUs: hours, bytes and money, with the corpus' preparation and storage,
    checkpoints and evaluation. Says whether the model fits a GPU, whether it needs DDP or FSDP, and what the GPUs send
    each other. Nothing is run. Several recipes, --gpus or --tokens give a table."""

    recipes: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RECIPE...")]
    """Recipes of `myna train`."""
    gpus: tuple[int, ...] = (8,)
    """How many GPUs."""
    gpu: str = "h100"
    """Which GPU, by its name in the table; another one with --peak-tflops."""
    tokens: tuple[float, ...] = ()
    """Tokens to train on, such as 1.3e12. Default: the recipe's."""
    batch_tokens: int | None = None
    """Tokens in a step, over all GPUs. Default: the recipe's."""
    micro_batch: Literal["auto"] | int = "auto"
    """Sequences that a GPU computes at once; auto takes the most that fit."""
    precision: PrecisionName = "auto"
    """What matrix products are computed in; auto: bf16, or fp16 where the GPU has no bf16."""
    shard: Literal["auto", "ddp", "fsdp"] = "auto"
    """What each GPU holds; see `myna train --help`. auto takes ddp where it fits."""
    activation_checkpointing: bool = False
    """Compute activations twice to save memory. Without it, the plan says where only this fits."""
    assumptions: Annotated[AssumptionFlags, tyro.conf.arg(name="")] = field(default_factory=AssumptionFlags)
    json: bool = False
    """Print JSON: an object for one plan, a list for several."""


def main(args: Sequence[str]) -> None:
    """Runs `myna plan`."""
    refuse_empty(args)
    call = parse(PlanCall, args, command="plan")
    from myna.files import json_bytes
    from myna.plan.assumptions import assume
    from myna.plan.run import Plan
    from myna.plan.table import many, report

    given = {one.name: getattr(call.assumptions, one.name) for one in fields(AssumptionFlags)}
    assumptions = assume(call.gpu, call.precision, given)
    rows = planned(call, assumptions)
    if call.json:
        objects = [row.to_dict() if isinstance(row, Plan) else dataclasses.asdict(row) for row in rows]
        sys.stdout.buffer.write(json_bytes(objects if len(objects) > 1 else objects[0]))
        return
    alone = len(rows) == 1 and isinstance(rows[0], Plan)
    print("\n".join(report(rows[0]) if alone else many(rows)))  # type: ignore[arg-type]


def planned(call: PlanCall, assumptions: "Assumptions") -> "list[Plan | Refused]":
    """Every combination of recipes, tokens and GPUs. Of several, one that cannot be is a row that says why.

    Raises:
        UsageError: a recipe is not there; too many combinations; the only one cannot be.
    """
    from myna.plan.run import plan, recipe_for
    from myna.plan.table import Refused

    check(call)
    combinations = [
        (name, tokens, gpus)
        for name in call.recipes
        for tokens in call.tokens or (None,)
        for gpus in call.gpus
    ]
    if len(combinations) > MOST_ROWS:
        raise UsageError(f"{len(combinations):,} plans are more than {MOST_ROWS}; give fewer values")
    found: list[Plan | Refused] = []
    for name, tokens, gpus in combinations:
        recipe = replace(named(name), micro_batch=call.micro_batch)
        if call.batch_tokens is not None:
            recipe = replace(recipe, batch_tokens=call.batch_tokens)
        recipe = recipe_for(recipe, tokens)
        try:
            found.append(
                plan(
                    recipe,
                    vocab_size(recipe),
                    gpus,
                    assumptions,
                    shard=call.shard,
                    recompute=call.activation_checkpointing,
                )
            )
        except UsageError as error:
            if len(combinations) == 1:
                raise
            found.append(Refused(name, recipe.tokens, gpus, str(error)))
    return found


def check(call: PlanCall) -> None:
    """
    Raises:
        UsageError: no recipe, or a number of GPUs that cannot be.
    """
    if not call.recipes:
        raise UsageError("name a recipe, such as gpt2-124m; `myna plan --help` lists the flags")
    if call.batch_tokens is not None and call.batch_tokens > MOST_BATCH_TOKENS:
        raise UsageError(f"--batch-tokens is {call.batch_tokens}; give at most {MOST_BATCH_TOKENS:,}")
    for gpus in call.gpus:
        if not 1 <= gpus <= MOST_GPUS:
            raise UsageError(f"--gpus is {gpus}; give 1 to {MOST_GPUS:,}")
