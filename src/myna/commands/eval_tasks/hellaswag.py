"""`myna eval --task hellaswag`: accuracy in three conventions."""

from pathlib import Path
from typing import Any

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.model_flags import Running
from myna.progress import Progress


def data_path(call: Eval) -> Path:
    """The file that was named; else the official one, fetched where it is not in the user's cache.

    Raises:
        DownloadError: it can't be fetched, or another file came in its place.
    """
    if call.data is not None:
        return call.data
    from myna.evaluate.hellaswag import OFFICIAL

    with Progress(OFFICIAL.name, OFFICIAL.n_bytes, counted=False) as progress:
        return OFFICIAL.fetched(on_bytes=lambda done, total: progress.update(done))


def hellaswag(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """The three accuracies, or that of the letters, how sure they are, and what guessing gives.

    Raises:
        DataError: the file is not HellaSwag's format, or has no labels; names the line.
    """
    import torch

    from myna.evaluate.choices import choice_sums, encode_choices
    from myna.evaluate.continuations import n_cut
    from myna.evaluate.hellaswag import (
        as_choice,
        encode_items,
        hellaswag_scores,
        read_items,
    )
    from myna.evaluate.overlap import read_touched
    from myna.references import HELLASWAG_CHANCE

    assert data is not None
    model = running.opened.model
    items = read_items(data, call.rendering or "lecture")
    letters = call.style == "letters"
    if letters:
        choices = [as_choice(item) for item in items]
        questions = encode_choices(choices, "", "letters", running.tokenizer, model.config.block_size)
    else:
        questions = encode_items(items, running.tokenizer, model.config.block_size)
    touched = set(read_touched(call.overlap, data, len(items))) if call.overlap else set()
    parts = {
        "clean": [question for n, question in enumerate(questions) if n not in touched],
        "touched": [question for n, question in enumerate(questions) if n in touched],
    }
    with Progress("HellaSwag items", len(questions)) as progress:
        sums = {
            part: choice_sums(
                model, some, autocast_dtype=running.precision.dtype, on_questions=progress.advance
            )
            for part, some in parts.items()
            if some
        }
    scores = _named(hellaswag_scores(sum(sums.values(), torch.zeros(4, dtype=torch.float64))), letters)
    if call.overlap:
        for part, some in sums.items():
            scores |= {
                f"{key}/{part}": value for key, value in _named(hellaswag_scores(some), letters).items()
            }
    return _with_errors(scores) | {"hellaswag_cut": n_cut(questions), "hellaswag_chance": HELLASWAG_CHANCE}


def _named(scores: dict[str, float], letters: bool) -> dict[str, float]:
    """The scores under their keys: the three readings of a letter are one."""
    if not letters:
        return scores
    return {"hellaswag_letters_acc": scores["hellaswag_acc"], "hellaswag_items": scores["hellaswag_items"]}


def _with_errors(scores: dict[str, float]) -> dict[str, float]:
    """And behind each accuracy, its standard error."""
    from myna.evaluate.accuracy import standard_error

    errors = {}
    for key, value in scores.items():
        name, slash, part = key.partition("/")
        if name != "hellaswag_items":
            items = int(scores[f"hellaswag_items{slash}{part}"])
            errors[f"{name}_stderr{slash}{part}"] = standard_error(value, items)
    return scores | errors


HELLASWAG = Task(
    summary="which ending goes on from the context; accuracy in three conventions, or by letters",
    find_data=data_path,
    score=hellaswag,
    reads=("rendering", "style", "overlap"),
    costs=("hellaswag_acc", "hellaswag_acc_token", "hellaswag_acc_char", "hellaswag_letters_acc"),
)
