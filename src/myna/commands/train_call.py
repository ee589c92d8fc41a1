"""What `myna train` was asked, and whether the run that is already in the folder may go on with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from myna.errors import DataError, ModelError, OutputError, UsageError
from myna.model.network import NETWORKS, network_kind
from myna.recipes import RECIPES, named
from myna.run import Run
from myna.settings import DeviceName, flag
from myna.train.minutes import LaidOut, check_minutes
from myna.train.optimizers import OPTIMIZERS, optimizer_kind
from myna.train.recipe import SOURCES, Recipe, changed_fields

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainCall:
    """Train a model from a recipe: `myna train RECIPE [OPTIONS]`; without RECIPE, pydoc.

    A run that was stopped goes on from its newest sound checkpoint when the same command is given again.
    """

    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=RECIPES["pydoc"])
    data: Path | None = None
    """Folder of a prepared dataset (see `myna prepare`). pydoc and shakespeare prepare theirs under data/."""
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
    cosine ended; --decay-steps N draws the cosine anew, to end at step N."""
    minutes: float | None = None
    """Train for about so many minutes on this machine, in place of --steps. The run measures its speed once and chooses
    the steps. Warmup, decay, evaluations, samples and checkpoints keep their share of the recipe's steps; a number that
    you give yourself stays. The evaluations and checkpoints are part of the minutes; preparing data is not."""
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
    """URL of a folder that gets a copy of each checkpoint: s3://BUCKET/FOLDER, or any other that fsspec knows."""
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
        if self.minutes is not None:
            check_minutes(self.minutes)
            if "steps" in self.given:
                raise UsageError("--minutes chooses the number of steps; leave --steps out, or --minutes")
            if self.extend:
                raise UsageError(
                    "--extend goes on to a number of steps; give --steps N, and leave --minutes out"
                )


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
        tokens = _billions(recipe.steps * recipe.batch_tokens)
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


@dataclass(frozen=True)
class Stored:
    """What the run that is already in the folder says of itself."""

    recipe: dict[str, Any]
    micro_batch: int


# In recipe.json: the steps that the run had before it was extended.
EXTENDED_FROM = "extended_from"


def settle_recipe(run: Run, call: TrainCall, finished: int | None, say: Say) -> tuple[Recipe, Stored | None]:
    """The recipe to train with, and what the folder's run has stored, if there is one that may go on.

    Args:
        finished: the step of the run's newest sound checkpoint; None where it has none.
    Raises:
        OutputError: `--resume never`, and the folder holds a run.
        UsageError: another recipe than the run's, without `--override`, or another network; an impossible `--extend`.
        DataError: what is stored is damaged.
    """
    asked = call.settings
    if not run.exists():
        if call.extend:
            raise UsageError(
                f"--extend: {run.path} holds no run; leave --extend out, or name the run with --out"
            )
        if call.minutes is not None and finished is not None:
            raise UsageError(
                f"--minutes: {run.path} has checkpoints and no recipe.json, which says how many steps were chosen; "
                "restore the file, or give another --out"
            )
        return asked, None
    if call.resume == "never":
        raise OutputError(f"{run.path} holds a run already, and --resume is never; give another --out")
    recipe = stored_recipe(run)
    stored = Stored(recipe, recipe["micro_batch"])
    if call.settings.overfit != bool(recipe.get("overfit", False)):
        kind = "an ordinary run, and --overfit makes none" if call.settings.overfit else "a run of --overfit"
        raise UsageError(f"{run.path} holds {kind}; give another --out")
    compared = asked = laid_out_as_before(run, call, recipe)
    if asked.micro_batch == "auto":
        compared = replace(compared, micro_batch=stored.micro_batch)
    if asked.tokenizer == "from-data":
        compared = replace(compared, tokenizer=recipe["tokenizer"])
    if call.extend:
        asked = extended(run, asked, recipe, finished, say)
        begun = asked.steps == recipe["steps"]
        decay_steps = asked.decay_steps if begun else recipe.get("decay_steps", 0)
        compared = replace(compared, steps=recipe["steps"], decay_steps=decay_steps)
    elif EXTENDED_FROM in recipe and asked.steps == recipe["steps"] and not asked.decay_steps:
        # A run that was extended goes on without the word, too.
        decay_steps = recipe.get("decay_steps", 0)
        asked = replace(asked, decay_steps=decay_steps)
        compared = replace(compared, decay_steps=decay_steps)
    require_unchanged(run, compared, recipe, call.override, finished, say)
    return asked, stored


def laid_out_as_before(run: Run, call: TrainCall, stored: dict[str, Any]) -> Recipe:
    """The recipe that a call asks for, laid over steps as its run is where that was begun with `--minutes`.

    Raises:
        UsageError: the run was begun with other minutes, or without, or the call gives neither minutes nor steps.
    """
    asked, laid, begun = call.settings, LaidOut.of(stored), f"{run.path} was begun"
    if laid is None:
        if call.minutes is not None:
            raise UsageError(
                f"{begun} without --minutes, with {stored['steps']:,} steps; leave --minutes out, or give another --out"
            )
        return asked
    again = f"give --minutes {laid.minutes:g} again, or another --out"
    before = f"with --minutes {laid.minutes:g}, which came to {laid.steps:,} steps"
    if call.minutes is None:
        if not ("steps" in call.given or call.override or call.extend):
            raise UsageError(
                f"{begun} {before}; {again}; --extend --steps N trains it further once it is finished"
            )
        return replace(laid.over(asked, call.given), steps=asked.steps)
    if call.minutes != laid.minutes:
        raise UsageError(
            f"{begun} {before}, and not with --minutes {call.minutes:g}; {again}; --steps N changes its length: with "
            "--extend once it is finished, with --override before"
        )
    return replace(laid.over(asked, call.given), steps=stored["steps"])


def stored_recipe(run: Run) -> dict[str, Any]:
    """What recipe.json holds, as it stands there: a version that lacked a field says nothing of it.

    Raises:
        DataError: a value of it cannot be, or one that a resume needs is missing.
    """
    recipe = run.recipe()
    try:
        Recipe.from_dict(recipe)
        LaidOut.of(recipe)
        for name in ("steps", "tokenizer", "micro_batch"):
            if name not in recipe:
                raise UsageError(f"{flag(name)} is missing")
        if recipe["micro_batch"] == "auto":
            raise UsageError("--micro-batch is 'auto', and a run has the number that was chosen")
    except (UsageError, ModelError) as error:
        raise DataError(
            f"{run.recipe_path} is not what was written there: {error}; restore the file, or give another --out"
        ) from error
    return recipe


def extended(run: Run, asked: Recipe, stored: dict[str, Any], finished: int | None, say: Say) -> Recipe:
    """The recipe of a finished run that is to be trained further.

    Raises:
        UsageError: it is not finished, or the steps are not more than before.
    """
    before = stored["steps"]
    decay = asked.decay_steps or stored.get("decay_steps", 0) or before
    if EXTENDED_FROM in stored and asked.steps == before:  # the same command again: the extension goes on
        return replace(asked, decay_steps=decay)
    if finished is None or finished < before:
        raise UsageError(
            f"--extend: {run.path} is not finished ({finished or 0} of {before} steps); finish it first: the same "
            "command without --extend and with its own --steps"
        )
    if asked.steps <= before:
        raise UsageError(f"--extend: {run.path} has {before} steps already; give --steps more than that")
    say(f"extending {run.path} from {before} to {asked.steps} steps; the cosine ends at step {decay}")
    return replace(asked, decay_steps=decay)


def require_unchanged(
    run: Run, recipe: Recipe, stored: dict[str, Any], override: bool, finished: int | None, say: Say
) -> None:
    """Refuses to go on with a changed recipe.

    Raises:
        UsageError: names what changed, and what to do.
    """
    changes = changed_fields(recipe, stored)
    if not changes:
        return
    what = "; ".join(change.text for change in changes.values())
    if fixed := [name for name, change in changes.items() if change.rule == "never"]:
        names = ", ".join(flag(name) for name in fixed)
        raise UsageError(
            f"{run.path} holds a run of another network ({what}); {names} cannot change; give another --out"
        )
    if not override:
        done = finished is not None and finished >= stored["steps"]
        more = ", or train it further with --extend" if done and recipe.steps > stored["steps"] else ""
        raise UsageError(
            f"{run.path} holds a run of another recipe ({what}); give another --out, or go on with --override{more}"
        )
    say(f"going on with a changed recipe: {what}")
