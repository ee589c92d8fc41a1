"""The data of `myna train`: found, or prepared where a recipe can do so unasked, and verified."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from myna.commands.train_call import Say, TrainCall
from myna.commands.train_init import base_tokenizer, require_extension
from myna.commands.train_sources import Named
from myna.errors import DataError, UsageError
from myna.paths import quoted
from myna.recipes import SELF_PREPARING
from myna.train.recipe import Recipe

if TYPE_CHECKING:
    from myna.data.mixture import Mixture
    from myna.data.split import Dataset
    from myna.text.tokenizer import Tokenizer
    from myna.train.machines.ranks import Ranks


def open_data(
    call: TrainCall, recipe: Recipe, ranks: "Ranks", say: Say, *, begins: bool
) -> "tuple[Mixture, Tokenizer]":
    """What is trained on, verified, and the tokenizer that made it; prepared first where a recipe can.

    Args:
        begins: the run is a new one, so that what it starts from must fit the data.
    Raises:
        UsageError: there is no data, and this recipe's is too large to fetch unasked; or datasets of two kinds.
        DataError: damaged, or made with another tokenizer.
    """
    named = call.sources
    if not named:
        path = Path("data") / recipe.name
        named = [Named(str(path), path.name, None)]
        if ranks.is_main:
            prepare_own(recipe, path, say)
        ranks.barrier()
    opened = [open_one(found(one), recipe, ranks, say, begins=begins) for one in named]
    datasets = [dataset for dataset, _ in opened]
    for dataset, other in itertools.pairwise(datasets):
        if dataset.tokenizer_sha256 != other.tokenizer_sha256:
            raise DataError(
                f"{dataset.path} and {other.path} were made with different tokenizers; a mixture has one: prepare one "
                "of them again"
            )
        if dataset.has_conversations != other.has_conversations:
            raise UsageError(
                f"of {dataset.path} and {other.path} one holds conversations and the other text; mix datasets of one "
                "kind"
            )
    return mixture_of(named, datasets, say), opened[0][1]


def found(one: Named) -> Path:
    """The dataset's folder on this machine. Where a URL names it, the first rank of each machine to come fetches it.

    Raises:
        DownloadError, DataError: it can't be fetched, or is damaged there.
    """
    from myna.data.remote import fetch_data
    from myna.store.here import here
    from myna.train.machines.torchrun import once_a_machine, process_environment

    # All machines at once, and no rank waits in a collective meanwhile, which would time out.
    with once_a_machine(process_environment()):
        return here(one.place, fetch_data)


def mixture_of(named: "list[Named]", datasets: "list[Dataset]", say: Say) -> "Mixture":
    """Datasets with the weights that were given them; without, each counts by its training tokens."""
    from myna.data.mixture import Mixture, Source, whole_parts

    weights = [
        Fraction(max(1, dataset.train.n_tokens)) if one.weight is None else one.weight
        for one, dataset in zip(named, datasets, strict=True)
    ]
    parts = whole_parts(weights)
    mixture = Mixture(
        tuple(
            Source(one.name, dataset, part) for one, dataset, part in zip(named, datasets, parts, strict=True)
        )
    )
    if any(
        Fraction(part, sum(parts)) != weight / sum(weights)
        for part, weight in zip(parts, weights, strict=True)
    ):
        say(f"the weights are rounded to parts of {sum(parts):,}: {mixture}")
    return mixture


def open_one(
    path: Path, recipe: Recipe, ranks: "Ranks", say: Say, *, begins: bool
) -> "tuple[Dataset, Tokenizer]":
    """A dataset, verified, and the recipe's tokenizer, which must be the dataset's.

    Raises:
        DataError: it is not there, is damaged, or was made with another tokenizer.
    """
    from myna.data.other_projects import remark_on
    from myna.data.shards import open_dataset
    from myna.text.tokenizer import Tokenizer

    if recipe.tokenizer in ("from-data", "from-init") or recipe.tokenizer.startswith("train:"):
        if not (path / "tokenizer.json").exists():
            raise DataError(f"{path} holds no tokenizer.json; name its tokenizer with --tokenizer")
        tokenizer = Tokenizer.load(path)
        if recipe.tokenizer == "from-init" and begins:
            require_extension(tokenizer, base_tokenizer(recipe.init), recipe.init, str(path))
        is_trained = recipe.tokenizer.startswith("train:")
        if is_trained and tokenizer.n_vocab != trained_size(recipe.tokenizer):
            raise DataError(
                f"{path} was made with a tokenizer of {tokenizer.n_vocab} ids, and the recipe says {recipe.tokenizer}; "
                "use --tokenizer from-data, or prepare it again"
            )
    else:
        tokenizer = Tokenizer.open(recipe.tokenizer)
    if ranks.is_main:
        opened = open_dataset(path, tokenizer=tokenizer)  # hashes everything; the other ranks find it done
        remark = remark_on(opened)
        if remark:
            say(remark)
    ranks.barrier()
    return open_dataset(path, tokenizer=tokenizer), tokenizer


def hellaswag_file(call: TrainCall, ranks: "Ranks") -> Path | None:
    """HellaSwag's file, where it is asked for; `auto` is the official one, fetched where a machine has it not.

    Raises:
        DownloadError: it can't be fetched, or another file came in its place.
    """
    if call.hellaswag != Path("auto"):
        return call.hellaswag
    from myna.evaluate.hellaswag import OFFICIAL

    ranks.main_does(lambda: str(OFFICIAL.fetched()))
    return OFFICIAL.fetched()  # on another machine it may have to come again


def prepare_own(recipe: Recipe, path: Path, say: Say) -> None:
    """Prepares the corpus of a recipe that can do so unasked; nothing where it is prepared already.

    Raises:
        UsageError: this recipe's corpus is large: prints the command that prepares it.
    """
    from myna.data.prepare import prepare
    from myna.data.shards import open_dataset
    from myna.data.sources.documents import documents
    from myna.text.chat import with_chat_tokens
    from myna.text.tokenizer import Tokenizer

    if not set(recipe.corpus) <= SELF_PREPARING:
        named = recipe.init if recipe.tokenizer == "from-init" else recipe.tokenizer
        raise UsageError(
            f"{recipe.name} trains on {' '.join(recipe.corpus)}, which is not prepared yet: "
            f"myna prepare {' '.join(map(quoted, recipe.corpus))}{' --conversations' * recipe.conversations} "
            f"--out data/{recipe.name} --tokenizer {quoted(named)}, then "
            f"myna train {recipe.name} --data data/{recipe.name}"
        )
    if (path / "dataset.json").exists():
        made_of = open_dataset(path, verify=False).info["source"].get("corpus", [])
        if made_of != list(recipe.corpus):
            raise UsageError(
                f"{path} was prepared from {' '.join(made_of)}, and this run wants {' '.join(recipe.corpus)}; "
                "prepare that into another folder with `myna prepare`, and name it with --data"
            )
        return
    if recipe.tokenizer.startswith("train:"):
        size = trained_size(recipe.tokenizer)
        say(f"training a tokenizer of {size:,} ids on {' '.join(recipe.corpus)}")
        tokenizer = Tokenizer.train(documents(recipe.corpus, split="train"), vocab_size=size)
    elif recipe.tokenizer == "from-data":
        raise UsageError("--tokenizer from-data needs --data, a prepared dataset")
    elif recipe.tokenizer == "from-init":
        tokenizer = base_tokenizer(recipe.init)
    else:
        tokenizer = Tokenizer.open(recipe.tokenizer)
    if recipe.conversations:
        tokenizer = with_chat_tokens(tokenizer)
    dataset = prepare(recipe.corpus, path, tokenizer, conversations=recipe.conversations)
    say(
        f"prepared {path}: {dataset.train.n_tokens:,} training and {dataset.val.n_tokens:,} validation tokens "
        f"from {dataset.train.n_documents + dataset.val.n_documents:,} documents"
    )


def trained_size(spec: str) -> int:
    """The N of `train:N`."""
    try:
        return int(spec.removeprefix("train:"))
    except ValueError as error:
        raise UsageError(
            f"--tokenizer {spec}: give train:N with a number of ids, such as train:4096"
        ) from error
