"""`myna eval`: validation loss and bits per byte, or HellaSwag, of a model."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from myna.commands import parse, refuse_empty
from myna.errors import CheckpointError, DataError, ModelError, UsageError
from myna.run import Run

if TYPE_CHECKING:
    import torch

    from myna.data.split import Dataset
    from myna.model.open import Opened
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Eval:
    """Score a model: its loss on a dataset's validation split, or HellaSwag."""

    model: tyro.conf.Positional[str]
    """A run folder (its newest checkpoint), a checkpoint, a Hugging Face GPT-2 folder, or a hub name such as gpt2."""
    task: Literal["val", "hellaswag"]
    """val: loss and bits per byte on the validation split. hellaswag: accuracy in three conventions."""
    data: Path | None = None
    """val: a prepared dataset (see `myna prepare`); default for a run: the folder data/RECIPE that it trained on.
    hellaswag: the official JSONL file (hellaswag_val.jsonl)."""
    json: bool = False
    """Print one JSON object, with the keys of metrics.jsonl."""
    sequence_length: int | None = None
    """val: tokens in a window. Default: what the run was trained with, else all positions of the model."""
    rendering: Literal["lecture", "harness"] = "lecture"
    """hellaswag: how an item becomes text: as in the lecture, or as lm-evaluation-harness does."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """What matrix products are computed in; auto as in training. Softmax and sums are fp32 and fp64 in each."""
    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's folder or file, for a model that has none beside it. Default: the model's own."""


def main(args: Sequence[str]) -> None:
    """Runs `myna eval`."""
    refuse_empty(args)
    call = parse(Eval, args, command="eval")
    from myna.model.open import open_model
    from myna.text.tokenizer import Tokenizer
    from myna.train.ranks import apply_precision, resolve_device, resolve_precision

    data = data_path(call)
    device = resolve_device(call.device)
    precision = resolve_precision(call.precision, device)
    apply_precision(precision)
    opened = open_model(call.model, device)
    tokenizer = Tokenizer.open(call.tokenizer) if call.tokenizer else opened.tokenizer
    if tokenizer is None:
        raise ModelError(f"{opened.path} has no tokenizer beside the weights; name one with --tokenizer")
    if tokenizer.n_vocab > opened.model.config.vocab_size:
        raise ModelError(
            f"tokenizer {tokenizer.name} has {tokenizer.n_vocab} ids and the model {opened.model.config.vocab_size}; "
            "use the tokenizer that the model was trained with"
        )
    task = validation if call.task == "val" else hellaswag
    scores = task(call, data, opened, tokenizer, precision.dtype)
    about = {"model": str(opened.path), "task": call.task, "data": str(data), "precision": precision.name}
    if call.json:
        whole = about | {key: value if math.isfinite(value) else None for key, value in scores.items()}
        print(json.dumps(whole, ensure_ascii=False))
        return
    for key, shown in (
        about | {k: f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for k, v in scores.items()}
    ).items():
        print(f"{key:<20} {shown}")


def data_path(call: Eval) -> Path:
    """Where the data lies; for a run's validation that may be told from the run.

    Raises:
        UsageError: it was not named, and cannot be told.
    """
    if call.data is not None:
        return call.data
    if call.task == "hellaswag":
        raise UsageError(
            "--task hellaswag needs --data FILE: hellaswag_val.jsonl of github.com/rowanz/hellaswag, folder data"
        )
    run = Run(call.model)
    if run.exists():
        usual = Path("data") / str(run.recipe().get("name"))
        if usual.is_dir():
            return usual
    raise UsageError(
        "--task val needs --data DIR, a dataset that `myna prepare` made with the model's tokenizer"
    )


def validation(
    call: Eval, data: Path, opened: "Opened", tokenizer: "Tokenizer", autocast_dtype: "torch.dtype | None"
) -> dict[str, Any]:
    """Loss and bits per byte on the validation split.

    Raises:
        DataError: no dataset, a damaged one, or of another tokenizer. UsageError: a sequence length that cannot be.
    """
    from myna.data.batches import VALIDATION_TARGETS
    from myna.evaluate.loss import validation_scores, validation_sums

    positions = opened.model.config.block_size
    length = call.sequence_length
    if length is None:
        run = Run(call.model)
        length = int(run.recipe().get("sequence_length", positions)) if run.exists() else positions
    if not 1 <= length <= positions:
        raise UsageError(f"--sequence-length is {length}; give 1 to {positions}, the positions of this model")
    dataset = open_data(data, tokenizer)
    if call.data is None:
        check_trained_on(dataset, opened.path, call.model)
    split = dataset.val
    with progress("validation targets", min(split.n_tokens - 1, VALIDATION_TARGETS)) as done:
        sums = validation_sums(
            opened.model,
            split,
            tokenizer.id_bytes(),
            sequence_length=length,
            autocast_dtype=autocast_dtype,
            on_targets=done,
        )
    return validation_scores(sums) | {
        "val_targets": int(sums[1]),
        "val_text_bytes": int(sums[3]),
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
    dataset = open_dataset(path)
    if dataset.tokenizer_sha256 != tokenizer.sha256:
        raise DataError(
            f"{path} was made with another tokenizer than the model's ({tokenizer.name}), so its ids mean other text; "
            "prepare the corpus with the model's: myna prepare CORPUS --out DIR --tokenizer MODEL_FOLDER"
        )
    return dataset


def check_trained_on(dataset: "Dataset", checkpoint: Path, run: str) -> None:
    """Refuses a dataset that was only guessed, where the checkpoint says that it learned from another.

    Raises:
        UsageError: it did. CheckpointError: its record can't be read.
    """
    from myna.commands.train_data import dataset_identity
    from myna.model.checkpoint import TRAIN_STATE

    try:
        state = json.loads((checkpoint / TRAIN_STATE).read_text("utf-8"))
    except FileNotFoundError:
        return  # weights alone: nothing is known of their data
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint / TRAIN_STATE} cannot be read: {error}; use another checkpoint"
        ) from error
    if state.get("dataset") != dataset_identity(dataset):
        raise UsageError(
            f"{run} was trained on another dataset than {dataset.path}; name the folder to score it on with --data DIR"
        )


def hellaswag(
    call: Eval, data: Path, opened: "Opened", tokenizer: "Tokenizer", autocast_dtype: "torch.dtype | None"
) -> dict[str, Any]:
    """The three accuracies.

    Raises:
        DataError: the file is not HellaSwag's format, or has no labels; names the line.
    """
    from myna.evaluate.hellaswag import encode_items, hellaswag_scores, hellaswag_sums, read_items

    items = read_items(data, call.rendering)
    questions = encode_items(items, tokenizer, opened.model.config.block_size)
    with progress("HellaSwag items", len(questions)) as done:
        sums = hellaswag_sums(opened.model, questions, autocast_dtype=autocast_dtype, on_questions=done)
    return hellaswag_scores(sums)


@contextlib.contextmanager
def progress(what: str, total: int, line_every_s: float = 10.0) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how many more are done: shown as a bar on a terminal, else as lines, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
        return
    so_far, next_line = 0, time.monotonic() + line_every_s

    def done(more: int) -> None:
        nonlocal so_far, next_line
        so_far += more
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + line_every_s
            print(f"{what}: {so_far:,} of {total:,}", file=sys.stderr, flush=True)

    yield done
