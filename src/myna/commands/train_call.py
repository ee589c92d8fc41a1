"""What `myna train` was asked: its flags, and the text of its help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from myna.commands.train_sources import DataFlag, Named, named_sources
from myna.errors import UsageError
from myna.model.network import NETWORKS, network_kind
from myna.recipes import RECIPES, named
from myna.settings import DeviceName, flag
from myna.train.laid_out import By, check_length
from myna.train.optimizers import OPTIMIZERS, optimizer_kind
from myna.train.recipe import SOURCES, Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainCall:
    """Train a model from a recipe: `myna train RECIPE [OPTIONS]`; without RECIPE, pydoc.

    A run that was stopped goes on from its newest sound checkpoint when the same command is given again.
    """

    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=RECIPES["pydoc"])
    data: DataFlag = ()
    """Folder of a prepared dataset (see `myna prepare`), or its URL on another store. pydoc and shakespeare prepare
    theirs under data/. Give several for a mixture: --data A:0.7 --data B:0.3 takes 70% of the windows from A. What
    follows the last colon is a weight if it is a number; a dataset of weight 0 is validated only. Without weights, each
    counts by its training tokens."""
    out: Path | None = None
    """Folder of the run; runs/RECIPE if not given."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on with the run in --out; never refuses a folder that holds one."""
    override: bool = False
    """Go on although the recipe or the data changed since; the network and the optimizer must be the same."""
    extend: bool = False
    """Train a finished run further, to --steps, which must be more than before. The learning rate stays where the
    decay ended. --decay-steps N computes the decay again, to end at step N."""
    minutes: float | None = None
    """Train for about so many minutes on this machine, in place of --steps. The run measures its speed once and chooses
    the steps. Warmup, decay, evaluations, samples and checkpoints keep their share of the recipe's steps; a number that
    you give yourself stays. The evaluations and checkpoints are part of the minutes; preparing data is not."""
    epochs: float | None = None
    """Go through the training data so many times, in place of --steps: a number, such as 4 or 0.5. Warmup, decay,
    evaluations, samples and checkpoints keep their share of the steps, as with --minutes. Of a mixture, an epoch has as
    many windows as all its datasets together."""
    hellaswag: Path | None = None
    """HellaSwag's JSONL file, to be scored on the way; `auto` fetches the official one once (12 MB)."""
    timeout_s: Annotated[float, tyro.conf.arg(name="timeout-s")] = 600.0
    """Seconds to wait for the other ranks; one that is silent for so long counts as hung, and is named."""
    shard: Literal["ddp", "fsdp"] = "ddp"
    """Over several ranks: ddp gives each all weights; fsdp spreads weights, gradients and the optimizer's state over
    them. They resume from each other's checkpoints."""
    activation_checkpointing: bool = False
    """Keep only the blocks' inputs for the backward pass and compute the rest again: less memory, a third more work."""
    keep_last: int = 0
    """Keep so many of the newest checkpoints; 0 keeps all."""
    keep_every: int = 0
    """With --keep-last, keep also the checkpoints of every so many steps; 0 for none."""
    copy_to: str | None = None
    """URL of a folder that becomes a copy of the run: s3://BUCKET/FOLDER, or any other that fsspec knows. Where --out
    holds no run and the copy does, the run is fetched from there and goes on."""
    on_spike: Literal["warn", "stop"] = "warn"
    """When the loss jumps 6 deviations and 0.1 nats above its mean of some 100 steps: say so, or stop before the
    update."""
    track: Literal["none", "wandb", "tensorboard"] = "none"
    """Tracker that gets the metrics too, through its own library."""
    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """The names of the fields that the person gave a value."""

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_every"):
            if getattr(self, name) < 0:
                raise UsageError(f"{flag(name)} is {getattr(self, name)}; give 0 or more")
        if self.keep_every and not self.keep_last:
            raise UsageError("--keep-every does nothing where all checkpoints are kept; give --keep-last too")
        if not 0 < self.timeout_s < 1e9:
            raise UsageError(f"--timeout-s is {self.timeout_s}; give a number of seconds over 0")
        self._check_length()
        named_sources(self.data)

    def _check_length(self) -> None:
        ramp = self.settings.batch_ramp_tokens
        if self.minutes is not None and ramp:
            raise UsageError(
                "--minutes measures one kind of step, and --batch-ramp-tokens makes steps of several lengths; give "
                "--steps or --epochs in place of --minutes"
            )
        if "batch_ramp_start_tokens" in self.given and not ramp:
            raise UsageError(
                "--batch-ramp-start-tokens does nothing without --batch-ramp-tokens; give both, or neither"
            )
        if self.minutes is not None and self.epochs is not None:
            raise UsageError("--minutes and --epochs both choose the number of steps; give one of them")
        if self.length is None:
            return
        by, amount = self.length
        check_length(by, amount)
        if "steps" in self.given:
            raise UsageError(f"{flag(by)} chooses the number of steps; leave --steps out, or {flag(by)}")
        if self.extend:
            raise UsageError(
                f"--extend goes on to a number of steps; give --steps N, and leave {flag(by)} out"
            )

    @property
    def length(self) -> tuple[By, float] | None:
        """How the length is given, if not in steps: `minutes` or `epochs`, and how many. None: in steps."""
        lengths: list[tuple[By, float | None]] = [(by, getattr(self, by)) for by in get_args(By)]
        return next(((by, amount) for by, amount in lengths if amount is not None), None)

    @property
    def sources(self) -> list[Named]:
        """The datasets that --data names."""
        return named_sources(self.data)


DESCRIPTION = f"""{{call}}

{{recipes}}

Networks: {{networks}}. Optimizers: {{optimizers}}. Name one to see its options: myna train --network NAME --help.

{SOURCES}"""


def description(call: str) -> str:
    """The text above the options in `myna train --help`."""
    return DESCRIPTION.format(
        call=call, recipes=recipes_in_words(), networks=", ".join(NETWORKS), optimizers=", ".join(OPTIMIZERS)
    )


def recipes_in_words() -> str:
    """The recipes with the tokens that they train on, and how many their corpora have."""
    from myna.data.sources.corpora import tokens_of

    width = max(map(len, RECIPES))
    lines = ["Recipes, with the tokens that they train on:"]
    for name in RECIPES:
        recipe = named(name)
        sizes = [tokens_of(corpus) for corpus in recipe.corpus]
        has = f", which has {_billions(sum(map(float, filter(None, sizes))))}" if all(sizes) else ""
        tokens = _billions(recipe.tokens)
        lines.append(f"  {name:<{width}}  {tokens} of {' '.join(recipe.corpus)}{has}")
    return "\n".join(lines)


def _billions(tokens: float) -> str:
    """
    >>> _billions(2_457_600), _billions(9_999_744_512), _billions(1.3e12)
    ('2.5 million', '10 billion', '1,300 billion')
    """
    unit, word = (1e9, "billion") if tokens >= 1e9 else (1e6, "million")
    return f"{tokens / unit:,.2g} {word}" if tokens < 100 * unit else f"{tokens / unit:,.0f} {word}"


def with_options_of(recipe: Recipe, args: Sequence[str]) -> Recipe:
    """The recipe with the network and the optimizer that the arguments name, so that their own options are flags too.

    Raises:
        UsageError: there is none of that name.
    """
    network = value_of("--network", args) or recipe.network
    optimizer = value_of("--optimizer", args) or recipe.optimizer
    changes: dict[str, Any] = {}
    if network != recipe.network:
        changes |= {"network": network, "network_options": network_kind(network).options_class()()}
    if optimizer != recipe.optimizer:
        changes |= {"optimizer": optimizer, "optimizer_options": optimizer_kind(optimizer).options()}
    return replace(recipe, **changes)


def value_of(wanted: str, args: Sequence[str]) -> str | None:
    """What the arguments give a flag, before they are parsed; None where it is not among them."""
    found = None
    for number, arg in enumerate(args):
        if arg == wanted and number + 1 < len(args):
            found = args[number + 1]
        elif arg.startswith(wanted + "="):
            found = arg.partition("=")[2]
    return found


def given_fields(args: Sequence[str]) -> frozenset[str]:
    """The fields whose flags are among the arguments.

    >>> sorted(given_fields(["pydoc", "--steps", "5", "--batch-tokens=64"]))
    ['batch_tokens', 'steps']
    """
    flags = (arg.partition("=")[0] for arg in args if arg.startswith("--"))
    return frozenset(name[2:].replace("-", "_") for name in flags)
