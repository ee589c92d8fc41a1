"""Whether the run that is already in the folder may go on with what `myna train` was asked."""

from dataclasses import dataclass, replace
from typing import Any

from myna.commands.train_call import Say, TrainCall
from myna.errors import DataError, ModelError, OutputError, UsageError
from myna.progress import counted
from myna.run import Run
from myna.settings import flag
from myna.train.laid_out import LaidOut
from myna.train.recipe import Recipe, changed_fields


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
        UsageError: a recipe that isn't the run's, without `--override` or where it can't change; an impossible
            `--extend`.
        DataError: what is stored is damaged.
    """
    asked = call.settings
    if not run.exists():
        if call.extend:
            raise UsageError(
                f"--extend: {run.path} holds no run; leave --extend out, or name the run with --out"
            )
        if call.length is not None and finished is not None:
            raise UsageError(
                f"{flag(call.length[0])}: {run.path} has checkpoints and no recipe.json, which says how many steps "
                "were chosen; restore the file, or give another --out"
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
    """The recipe that a call asks for, laid over steps as its run is where that was begun with `--minutes` or
    `--epochs`.

    Raises:
        UsageError: the run was begun with other minutes or epochs, or without, or the call gives none and no steps.
    """
    asked, laid, begun = call.settings, LaidOut.of(stored), f"{run.path} was begun"
    if laid is None:
        if call.length is not None:
            by = flag(call.length[0])
            raise UsageError(
                f"{begun} without {by}, with {counted(stored['steps'], 'step')}; leave {by} out, or give another --out"
            )
        return asked
    again = f"give {laid.as_given} again, or another --out"
    before = f"with {laid.as_given}, which came to {laid.steps:,} steps"
    if call.length is None:
        if not ("steps" in call.given or call.override or call.extend):
            raise UsageError(
                f"{begun} {before}; {again}; --extend --steps N trains it further once it is finished"
            )
        return replace(laid.over(asked, call.given), steps=asked.steps)
    if call.length != (laid.by, laid.amount):
        by, amount = call.length
        raise UsageError(
            f"{begun} {before}, and not with {flag(by)} {amount:g}; {again}; --steps N changes its length: with "
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
            f"{run.path} holds another run ({what}); {names} cannot change when a run goes on; give another --out"
        )
    if not override:
        done = finished is not None and finished >= stored["steps"]
        more = ", or train it further with --extend" if done and recipe.steps > stored["steps"] else ""
        raise UsageError(
            f"{run.path} holds a run of another recipe ({what}); give another --out, or go on with --override{more}"
        )
    say(f"going on with a changed recipe: {what}")
