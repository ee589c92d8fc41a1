"""`myna eval`: validation loss and bits per byte, or HellaSwag, of a model."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.model_flags import RunningModelFlags, open_to_run
from myna.errors import CheckpointError, DataError, UsageError
from myna.parsing import read_object
from myna.progress import Progress
from myna.run import Run
from myna.settings import is_whole

if TYPE_CHECKING:
    import torch

    from myna.data.split import Dataset
    from myna.model.open import Opened
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Eval:
    """Score a model: its loss on a dataset's validation split, or HellaSwag."""

    model: Annotated[RunningModelFlags, tyro.conf.arg(name="")]
    task: Literal["val", "hellaswag"]
    """val: loss and bits per byte on the validation split. hellaswag: accuracy in three conventions."""
    data: Path | None = None
    """val: a prepared dataset (see `myna prepare`); default for a run: the dataset that it trained on.
    hellaswag: the official JSONL file (hellaswag_val.jsonl)."""
    json: bool = False
    """Print one JSON object, with the keys of metrics.jsonl."""
    sequence_length: int | None = None
    """val: tokens in a window. Default: what the run was trained with, else all positions of the model."""
    rendering: Literal["lecture", "harness"] = "lecture"
    """hellaswag: how an item becomes text: as in the lecture, or as lm-evaluation-harness does."""


# What weights that were asked for cost: the score with them, less the score with those that were read.
COSTS = ("val_loss", "hellaswag_acc", "hellaswag_acc_token", "hellaswag_acc_char")


def main(args: Sequence[str]) -> None:
    """Runs `myna eval`."""
    refuse_empty(args)
    call = parse(Eval, args, command="eval")
    data = data_path(call)
    running = open_to_run(call.model.model, call.model, generates=False)
    opened, tokenizer, precision = running.opened, running.tokenizer, running.precision
    task = validation if call.task == "val" else hellaswag
    asked = call.model.weights not in ("auto", "fp32")
    as_read = task(call, data, opened, tokenizer, precision.dtype) if asked else {}
    running.store()
    scores = task(call, data, opened, tokenizer, precision.dtype)
    cost = {f"{key}_cost": scores[key] - as_read[key] for key in COSTS if key in as_read}
    about = {
        "model": str(opened.path),
        "task": call.task,
        "data": str(data),
        "weights": running.weights,
        "precision": precision.name,
    }
    scores |= cost
    if call.json:
        print(json.dumps(about | scores, ensure_ascii=False, allow_nan=False))
        return
    for key, shown in (about | for_people(scores)).items():
        print(f"{key:<20} {shown}")


def for_people(scores: dict[str, Any]) -> dict[str, str]:
    """Scores as text: an accuracy with its standard error, and chance beside it."""
    shown = {}
    for key, value in scores.items():
        if key.endswith(("_stderr", "_chance")):
            continue
        shown[key] = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        if f"{key}_stderr" in scores:
            shown[key] += f" ± {scores[f'{key}_stderr']:.4f} (chance {scores['hellaswag_chance']:.4f})"
    return shown


def data_path(call: Eval) -> Path:
    """Where the data lies; for a run's validation the run may tell.

    Raises:
        UsageError: it was not named, and the run doesn't tell, or what it tells is not there.
    """
    if call.data is not None:
        return call.data
    if call.task == "hellaswag":
        raise UsageError(
            "--task hellaswag needs --data FILE: hellaswag_val.jsonl of github.com/rowanz/hellaswag, folder data"
        )
    run = call.model.run()
    if run.exists():
        told = trained_on(run)
        if told is not None:
            path = Path(told["path"])
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


def validation(
    call: Eval, data: Path, opened: "Opened", tokenizer: "Tokenizer", autocast_dtype: "torch.dtype | None"
) -> dict[str, Any]:
    """Loss and bits per byte on the validation split.

    Raises:
        DataError: no dataset, a damaged one, or of another tokenizer. UsageError: a sequence length that cannot be.
    """
    from myna.data.batches import VALIDATION_TARGETS
    from myna.evaluate.loss import validation_scores, validation_sums, why_no_bits_per_byte

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
    with Progress("validation targets", min(split.n_tokens - 1, VALIDATION_TARGETS)) as progress:
        sums = validation_sums(
            opened.model,
            split,
            tokenizer.id_bytes(),
            text_ids=tokenizer.text_ids(),
            sequence_length=length,
            autocast_dtype=autocast_dtype,
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
    """The dataset, which the model's tokenizer must have made.

    Raises:
        DataError: it is not there, is damaged, or was made with another tokenizer.
    """
    from myna.data.shards import open_dataset

    if not (path / "dataset.json").is_file():
        return open_dataset(
            path, tokenizer=tokenizer
        )  # another project's format, which can't say what made it
    if open_dataset(path, verify=False).tokenizer_sha256 != tokenizer.sha256:
        raise DataError(
            f"{path} was made with another tokenizer than the model's ({tokenizer.name}), so its ids mean other text; "
            "prepare the corpus with the model's: myna prepare CORPUS --out DIR --tokenizer MODEL_FOLDER"
        )
    return open_dataset(path, tokenizer=tokenizer)


def check_trained_on(dataset: "Dataset", checkpoint: Path, run: Run) -> None:
    """Refuses a dataset that was not named, where the run says that it learned from another.

    Raises:
        UsageError: it did. CheckpointError: its record can't be read.
    """
    told = trained_on(run)
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


def hellaswag(
    call: Eval, data: Path, opened: "Opened", tokenizer: "Tokenizer", autocast_dtype: "torch.dtype | None"
) -> dict[str, Any]:
    """The three accuracies, how sure they are, and what guessing gives.

    Raises:
        DataError: the file is not HellaSwag's format, or has no labels; names the line.
    """
    from myna.evaluate.accuracy import standard_error
    from myna.evaluate.hellaswag import (
        encode_items,
        hellaswag_scores,
        hellaswag_sums,
        read_items,
    )
    from myna.references import HELLASWAG_CHANCE

    items = read_items(data, call.rendering)
    questions = encode_items(items, tokenizer, opened.model.config.block_size)
    with Progress("HellaSwag items", len(questions)) as progress:
        sums = hellaswag_sums(
            opened.model, questions, autocast_dtype=autocast_dtype, on_questions=progress.advance
        )
    scores = hellaswag_scores(sums)
    errors = {
        f"{key}_stderr": standard_error(accuracy, len(items))
        for key, accuracy in scores.items()
        if key != "hellaswag_items"
    }
    return scores | {"hellaswag_chance": HELLASWAG_CHANCE} | errors
