"""`myna train --init MODEL`: the recipe takes the model's shape, and the network its weights."""

import contextlib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myna.commands.train_call import Say, value_of
from myna.errors import DataError, ModelError, MynaError, UsageError
from myna.paths import quoted
from myna.run import Run
from myna.settings import Options, flag
from myna.train.recipe import Recipe

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.text.tokenizer import Tokenizer

SHAPE = ("network", "network_options", "n_layer", "n_head", "n_embd", "block_size", "tokenizer")
# Of the recipe's learning rate, which is one for fresh weights. GPT-2 124M: 6e-5.
FINE_TUNING = 0.1


def started_from(recipe: Recipe, args: Sequence[str]) -> Recipe:
    """The recipe with the shape of the model that it or the arguments name in --init; itself where none is named.

    Raises:
        ModelError, CheckpointError, DownloadError: there is no such model.
    """
    given = value_of("--init", args)
    init = recipe.init if given is None else given
    if not init or {"--help", "-h"} & set(args):
        return recipe
    changes = stored_shape(recipe, args, init) or shape_of(init, recipe.name if given is None else "")
    if not recipe.init:
        changes["learning_rate"] = recipe.learning_rate * FINE_TUNING
    options = recipe.optimizer_options
    if value_of("--train-only", args) == "new-tokens":
        # It would change the weights that are to stay.
        no_decay: dict[str, Any] = dict.fromkeys(_decays(options), 0.0)
        changes["optimizer_options"] = replace(options, **no_decay)
    length = min(recipe.sequence_length, changes["block_size"])
    return replace(recipe, init=init, sequence_length=length, **changes)


def stored_shape(recipe: Recipe, args: Sequence[str], init: str) -> dict[str, Any] | None:
    """The same from the run that goes on, which needs the model no more; None where no run began from it."""
    run = Run(Path(value_of("--out", args) or f"runs/{recipe.name}"))
    with contextlib.suppress(MynaError):  # what is wrong with the run is told later, and better
        if run.exists() and run.recipe().get("init") == init:
            stored = Recipe.from_dict(run.recipe())
            return {name: getattr(stored, name) for name in SHAPE}
    return None


def shape_of(init: str, recipe: str = "") -> dict[str, Any]:
    """The fields of a recipe that a model decides.

    Args:
        recipe: the name of the recipe that asks for this model, where nobody else does.
    """
    from myna.model.open import find_model
    from myna.model.weights import read_shape

    if recipe and init.startswith("runs/") and not Path(init).exists():  # which could be a name on the hub
        raise ModelError(
            f"{recipe} starts from {init}, which is not there; train it first with `myna train "
            f"{init.removeprefix('runs/')}`, or name another model with --init"
        )
    path = find_model(init)
    network, config = read_shape(path)
    return {
        "network": network,
        "network_options": config.options,
        **{name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "block_size")},
        "tokenizer": "from-init",
    }


def check_shape(recipe: Recipe, started: Recipe) -> None:
    """Refuses flags that contradict the model of --init.

    Args:
        recipe: what was asked for.
        started: as `started_from` gave it, before the flags.
    Raises:
        UsageError: names the flag.
    """
    if not recipe.init:
        return
    for name in SHAPE:
        asked, is_so = getattr(recipe, name), getattr(started, name)
        if asked != is_so:
            raise UsageError(
                f"{flag(name)} is {asked}, and {recipe.init} has {is_so}; with --init the model decides: leave the "
                "flag out"
            )
    for name in _decays(recipe.optimizer_options) if recipe.train_only == "new-tokens" else ():
        if getattr(recipe.optimizer_options, name):
            raise UsageError(
                f"{flag(name, 'optimizer.')} would change the weights that --train-only new-tokens leaves as they "
                "are; leave it out"
            )


def _decays(options: Options) -> list[str]:
    """The names of an optimizer's weight decays."""
    return [field.name for field in fields(options) if field.name.endswith("weight_decay")]


def base_tokenizer(init: str) -> "Tokenizer":
    """The tokenizer of the model to start from.

    Raises:
        ModelError: it has none.
    """
    from myna.model.open import open_tokenizer

    return open_tokenizer(init)


def require_extension(tokenizer: "Tokenizer", base: "Tokenizer", init: str, where: str) -> None:
    """Refuses data that the model could not read.

    Raises:
        DataError: its tokenizer is not the model's, and does not only add special tokens to it.
    """
    if not tokenizer.extends(base):
        raise DataError(
            f"{where} was made with another tokenizer than {init} ({tokenizer.n_vocab:,} ids, not the model's "
            f"{base.n_vocab:,} with special tokens added); prepare it with --tokenizer {quoted(init)}"
        )


def take_weights(network: "Network", recipe: Recipe, say: Say) -> int:
    """Puts the weights of --init into a fresh network.

    Returns:
        how many ids that model knows; those after them are new.
    Raises:
        ModelError: it is not of the network's shape.
    """
    from myna.model.grow import grown_state
    from myna.model.open import open_model

    base = open_model(recipe.init)
    known = min(base_tokenizer(recipe.init).n_vocab, base.model.config.vocab_size)
    network.load_state_dict(grown_state(base.model, network, known))
    new = network.config.vocab_size - known
    say(
        f"starting from {base.path}{f', with {new} new tokens' * (new > 0)}; peak learning rate "
        f"{recipe.learning_rate:g}"
    )
    if recipe.train_only == "new-tokens" and not new:
        raise UsageError(
            f"--train-only new-tokens: the data has no token that {recipe.init} does not know; prepare it with "
            "--conversations, or train all"
        )
    return known
