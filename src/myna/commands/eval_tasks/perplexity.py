"""`myna eval --task perplexity`: perplexity and bits per byte of any text or dataset, in windows that overlap."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.eval_tasks.val import open_data
from myna.commands.model_flags import Running
from myna.errors import DataError, UsageError
from myna.files import reading
from myna.progress import Progress

if TYPE_CHECKING:
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Ids:
    """What is to be scored: ids, of which the first is no target, and the bytes of the others' text, if known."""

    ids: np.ndarray
    text_bytes: int | None


def data_path(call: Eval) -> Path:
    """What --data names.

    Raises:
        UsageError: nothing is named. DataError: it is not there. UnreadableError: it can't be looked at.
    """
    data = call.data_here()
    if data is None:
        raise UsageError(
            "--task perplexity needs --data, a text file, a folder of texts or a prepared dataset"
        )
    if not data.exists():
        raise DataError(f"{data} is not there; name a text file, a folder of texts or a prepared dataset")
    return data


def perplexity(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """The scores, with the window and the stride that they hold for.

    Raises:
        UsageError: a window or a stride that cannot be. DataError: no text, or text that can't be read.
    """
    from myna.evaluate.perplexity import perplexity_scores, perplexity_sums

    assert data is not None
    model, tokenizer = running.opened.model, running.tokenizer
    positions = model.config.block_size
    length = positions if call.sequence_length is None else call.sequence_length
    if not 1 <= length <= positions:
        raise UsageError(f"--sequence-length is {length}; give 1 to {positions}, the positions of this model")
    stride = max(1, length // 2) if call.stride is None else call.stride
    if not 1 <= stride <= length:
        raise UsageError(f"--stride is {stride}; give 1 to {length}, the tokens in a window")
    found = ids_of_dataset(data, tokenizer) if is_dataset(data) else ids_of_texts(data, tokenizer)
    with Progress("tokens", len(found.ids) - 1) as progress:
        sums = perplexity_sums(
            model,
            found.ids,
            tokenizer.text_ids(),
            length=length,
            stride=stride,
            autocast_dtype=running.precision.dtype,
            on_tokens=progress.advance,
        )
    return perplexity_scores(sums, found.text_bytes) | {
        "tokens": int(sums[1]),
        **({} if found.text_bytes is None else {"text_bytes": found.text_bytes}),
        "sequence_length": length,
        "stride": stride,
    }


def is_dataset(path: Path) -> bool:
    """Whether a folder holds ids, ours or another project's, and not texts."""
    with reading(path):
        names = [file.name for file in path.iterdir()] if path.is_dir() else []
    return "dataset.json" in names or any(name.endswith((".npy", ".bin")) for name in names)


def ids_of_dataset(path: Path, tokenizer: "Tokenizer") -> Ids:
    """The ids whose loss is `val_loss`: the first 10,485,761 of the validation split, or all.

    Raises:
        DataError: see `open_data`; or there is nothing to score.
    """
    from myna.data.batches import VALIDATION_TARGETS
    from myna.evaluate.loss import why_no_bits_per_byte

    split = open_data(path, tokenizer).val
    n_ids = min(split.n_tokens, VALIDATION_TARGETS + 1)
    if n_ids < 2:
        raise DataError(f"{split.place} has {n_ids} ids, so nothing to score; prepare a larger share of it")
    ids = split.read(0, n_ids)
    id_bytes = tokenizer.id_bytes()
    if why := why_no_bits_per_byte(split, tokenizer):
        print(why, file=sys.stderr)
    if id_bytes is not None:
        return Ids(ids, int(id_bytes[ids[1:]].sum()))
    return Ids(ids, split.stated_bytes if n_ids == split.n_tokens else None)


def ids_of_texts(path: Path, tokenizer: "Tokenizer") -> Ids:
    """The ids of a file or a folder of texts, as `myna prepare` would write them: each document after an end of text.

    Raises:
        DataError: there is no text, or it is not UTF-8.
    """
    from myna.data.sources.documents import document_parts

    ids: list[np.ndarray] = []
    n_bytes = 0
    spec = str(path) if path.is_absolute() else f"./{path}"  # never the corpus of that name
    for text, _, begins in document_parts([spec], val_fraction=0.0):
        ids.append(np.array([tokenizer.eot] * begins + tokenizer.encode(text), dtype=np.int64))
        n_bytes += len(text.encode("utf-8"))
    if sum(map(len, ids)) < 2:
        raise DataError(f"{path} holds no text; name one that does")
    return Ids(np.concatenate(ids), n_bytes)


PERPLEXITY = Task(
    summary="perplexity and bits per byte of a text file, a folder of texts or a dataset",
    find_data=data_path,
    score=perplexity,
    reads=("sequence_length", "stride"),
    costs=("nats_per_token",),
)
