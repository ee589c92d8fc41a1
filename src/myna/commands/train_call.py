"""What `myna train` was asked, and whether the run that is already in the folder may go on with it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from myna.errors import DataError, OutputError, UsageError
from myna.recipes import RECIPES
from myna.run import Run
from myna.train.recipe import SHAPE, Recipe, changed_fields


@dataclass(frozen=True)
class TrainCall:
    """Train a model from a recipe: `myna train RECIPE [OPTIONS]`; without RECIPE, pydoc.

    A run that was stopped goes on from its newest sound checkpoint when the same command is given again.
    """

    settings: tyro.conf.OmitArgPrefixes[Recipe] = field(default_factory=RECIPES["pydoc"])
    data: Path | None = None
    """Folder of a prepared dataset (see `myna prepare`). pydoc and shakespeare prepare theirs under data/."""
    out: Path | None = None
    """Folder of the run; runs/RECIPE if not given."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on with the run in --out; never refuses a folder that holds one."""
    override: bool = False
    """Go on although the recipe or the data changed since; the network's shape must be the same."""
    hellaswag: Path | None = None
    """HellaSwag's JSONL file, to be scored on the way."""
    timeout_s: Annotated[float, tyro.conf.arg(name="timeout-s")] = 600.0
    """Seconds to wait for the other ranks; one that is silent for so long counts as hung, and is named."""
    shard: Literal["ddp", "fsdp"] = "ddp"
    """Over several ranks: ddp gives each all weights; fsdp spreads weights, gradients and moments over them. They
    resume from each other's checkpoints."""
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

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_every"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {getattr(self, name)}; give 0 or more")
        if self.keep_every and not self.keep_last:
            raise UsageError("--keep-every does nothing where all checkpoints are kept; give --keep-last too")
        if not 0 < self.timeout_s < 1e9:
            raise UsageError(f"--timeout-s is {self.timeout_s}; give a number of seconds over 0")


def stored_recipe(run: Run, call: TrainCall, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The recipe of the run that is already in the folder, if there is one that may go on.

    Raises:
        OutputError: `--resume never`, and the folder holds a run.
        UsageError: another recipe than the run's, without `--override`, or another network.
        DataError: what is stored is damaged.
    """
    if not run.exists():
        return None
    if call.resume == "never":
        raise OutputError(f"{run.path} holds a run already, and --resume is never; give another --out")
    stored = run.recipe()
    if type(stored.get("micro_batch")) is not int or stored["micro_batch"] < 1:
        raise DataError(
            f"{run.recipe_path}: micro_batch is {stored.get('micro_batch')!r}, no number of sequences; restore the "
            "file, or give another --out"
        )
    asked = call.settings
    if asked.micro_batch == "auto":
        asked = replace(asked, micro_batch=stored["micro_batch"])
    if asked.tokenizer == "from-data":
        asked = replace(asked, tokenizer=stored["tokenizer"])
    changes = changed_fields(asked, stored)
    if not changes:
        return stored
    what = "; ".join(changes.values())
    if fixed := sorted(changes.keys() & SHAPE):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in fixed)
        raise UsageError(
            f"{run.path} holds a run of another network ({what}); {names} cannot change; give another --out"
        )
    if not call.override:
        raise UsageError(
            f"{run.path} holds a run of another recipe ({what}); give another --out, or go on with --override"
        )
    say(f"going on with a changed recipe: {what}")
    return stored
