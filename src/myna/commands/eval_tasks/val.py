"""`myna eval --task val`: loss and bits per byte on the validation split of a dataset."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.model_flags import Running
from myna.errors import CheckpointError, DataError, UsageError
from myna.parsing import read_object
from myna.progress import Progress
from myna.run import Run
from myna.settings import is_whole
from myna.store.here import here

if TYPE_CHECKING:
    from myna.data.split import Dataset
    from myna.text.tokenizer import Tokenizer


def data_path(call: Eval) -> Path:
    """Where the dataset lies; a run may tell.

    Raises:
        UsageError: it was not named, and the run doesn't tell, or what it tells is not there; or the run is a log.
    """
    if (data := call.data_here()) is not None:
        return data
    from myna.data.remote import fetch_validation

    run = call.model.run()
    if why := run.why_no_model():
        raise UsageError(f"{why}; give a model")
    if run.exists():
        told = trained_on(run)
        if told is not None:
            path = here(told["path"], fetch_validation, DataError)
            if not path.is_dir():
                raise UsageError(
                    f"{run.path} was trained on {path}, which is not here (its identity is {told['identity']}); "
                    "name its folder with --data DIR"
                )
            return path
        usual = Path("data") / str(run.recipe().get("name"))
        if usual.is_dir():
            return usual
    raise UsageError(
        "--task val needs --data DIR, a dataset that `myna prepare` made with the model's tokenizer"
    )


def trained_on(run: Run) -> dict[str, Any] | None:
    """What the recipe of a run tells of its dataset: `path` and `identity` at least. None: an older run tells nothing.

    Raises:
        UsageError: it was trained on a mixture. DataError: the recipe was changed.
    """
    told = run.recipe().get("trained_on")
    if told is None:
        return None
    if not isinstance(told, list) or not all(
        isinstance(one, dict) and isinstance(one.get("path"), str) and isinstance(one.get("identity"), str)
        for one in told
    ):
        raise DataError(
            f'{run.recipe_path}: "trained_on" is no list of datasets; name the folder to score on with --data DIR'
        )
    if len(told) != 1:
        raise UsageError(
            f"{run.path} was trained on {len(told)} datasets ({', '.join(one['path'] for one in told)}); "
            "name the one to score on with --data DIR"
        )
    return told[0]


def validation(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """Loss and bits per byte on the validation split.

    Raises:
        DataError: no dataset, a damaged one, or of another tokenizer. UsageError: a sequence length that cannot be.
    """
    from myna.data.batches import VALIDATION_TARGETS
    from myna.evaluate.loss import validation_scores, validation_sums, why_no_bits_per_byte

    assert data is not None
    opened, tokenizer = running.opened, running.tokenizer
    positions = opened.model.config.block_size
    length = call.sequence_length
    if length is None:
        run = call.model.run()
        length = run.recipe().get("sequence_length", positions) if run.exists() else positions
    if not is_whole(length) or not 1 <= length <= positions:
        raise UsageError(
            f"--sequence-length is {length!r}; give 1 to {positions}, the positions of this model"
        )
    dataset = open_data(data, tokenizer)
    if call.data is None:
        check_trained_on(dataset, opened.path, call.model.run())
    split = dataset.val
    targets = None if split.scored else min(split.n_tokens - 1, VALIDATION_TARGETS)
    with Progress("validation targets", targets) as progress:
        sums = validation_sums(
            opened.model,
            split,
            tokenizer.id_bytes(),
            text_ids=tokenizer.text_ids(),
            eot=tokenizer.eot,
            sequence_length=length,
            autocast_dtype=running.precision.dtype,
            on_targets=progress.advance,
        )
    if why := why_no_bits_per_byte(split, tokenizer):
        print(why, file=sys.stderr)
    return validation_scores(sums, split) | {
        "val_targets": int(sums[1]),
        **({"val_text_bytes": int(sums[3])} if tokenizer.is_exact else {}),
        "sequence_length": length,
    }


def open_data(path: Path, tokenizer: "Tokenizer") -> "Dataset":
    """The dataset, whose tokenizer must be the model's, or the model's without some special tokens. Of our own, the
    validation split alone is verified.

    Raises:
        DataError: it is not there, is damaged, or was made with another tokenizer.
    """
    from myna.data.shards import open_dataset
    from myna.text.tokenizer import Tokenizer

    if not (path / "dataset.json").is_file():
        return open_dataset(
            path, tokenizer=tokenizer
        )  # another project's format, which can't say what made it
    found = open_dataset(path, verify=False, splits=("val",))
    if found.tokenizer_sha256 != tokenizer.sha256 and not tokenizer.extends(
        Tokenizer.load(path / "tokenizer.json")
    ):
        raise DataError(
            f"{path} was made with another tokenizer than the model's ({tokenizer.name}), so its ids mean other text; "
            "prepare the corpus with the model's: myna prepare CORPUS --out DIR --tokenizer MODEL_FOLDER"
        )
    return open_dataset(path, tokenizer=tokenizer, splits=("val",))


def check_trained_on(dataset: "Dataset", checkpoint: Path, run: Run) -> None:
    """Refuses a dataset that was not named, where the run says that it learned from another.

    Raises:
        UsageError: it did. CheckpointError: its record can't be read.
    """
    told = trained_on(run)
    if told and dataset.tokenizer_path is None:
        # Such files don't say what made them; the run does. The model's tokenizer may have special tokens besides.
        dataset = replace(dataset, tokenizer_sha256=told.get("tokenizer") or dataset.tokenizer_sha256)
    expected = told["identity"] if told else identity_in_checkpoint(checkpoint)
    if expected is not None and expected != dataset.identity:
        raise UsageError(
            f"{run.path} was trained on a dataset with identity {expected}, and {dataset.path} has {dataset.identity}; "
            "name the folder to score it on with --data DIR"
        )


def identity_in_checkpoint(checkpoint: Path) -> str | None:
    """What an older run's checkpoint says of its dataset; None where it holds weights alone."""
    from myna.model.checkpoint import TRAIN_STATE

    path = checkpoint / TRAIN_STATE
    if not path.exists():
        return None
    return str(read_object(path, CheckpointError, "use another checkpoint").get("dataset"))


VAL = Task(
    summary="loss and bits per byte on the validation split",
    find_data=data_path,
    score=validation,
    reads=("sequence_length",),
    costs=("val_loss",),
)
