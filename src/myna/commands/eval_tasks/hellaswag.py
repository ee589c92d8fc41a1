"""`myna eval --task hellaswag`: accuracy in three conventions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.model_flags import Running
from myna.errors import UsageError
from myna.progress import Progress

if TYPE_CHECKING:
    from myna.evaluate.continuations import Question
    from myna.evaluate.hellaswag import Item


def data_path(call: Eval) -> Path:
    """The file that was named; else the official one, fetched where it is not in the user's cache.

    Raises:
        DownloadError: it can't be fetched, or another file came in its place.
    """
    if (data := call.data_here()) is not None:
        return data
    from myna.evaluate.hellaswag import OFFICIAL

    with Progress(OFFICIAL.name, OFFICIAL.n_bytes, counted=False) as progress:
        return OFFICIAL.fetched(on_bytes=lambda done, total: progress.update(done))


def hellaswag(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """The three accuracies, or that of the letters, how sure they are, and what guessing gives.

    Raises:
        DataError: the file is not HellaSwag's format, or has no labels; names the line.
    """
    import torch

    from myna.evaluate.choices import choice_sums
    from myna.evaluate.continuations import n_cut
    from myna.evaluate.hellaswag import hellaswag_scores, read_items
    from myna.evaluate.overlap import read_touched
    from myna.references import HELLASWAG_CHANCE

    assert data is not None
    model = running.opened.model
    items = read_items(data, call.rendering or "lecture")
    letters, questions = call.style == "letters", as_questions(items, call, running)
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


def as_questions(items: "Sequence[Item]", call: Eval, running: Running) -> "list[Question]":
    """The items as the call wants them asked."""
    from myna.evaluate.choices import encode_choices
    from myna.evaluate.hellaswag import as_choice, encode_items

    positions = running.opened.model.config.block_size
    if call.style == "letters":
        choices = [as_choice(item) for item in items]
        return encode_choices(choices, "", "letters", running.tokenizer, positions)
    return encode_items(items, running.tokenizer, positions)


def explain(call: Eval, running: Running, data: Path | None) -> tuple[dict[str, Any], list[str]]:
    """One item in full.

    Raises:
        UsageError: the file has no such item, or a flag is of all items. DataError: as `hellaswag`.
    """
    from myna.evaluate.explain import explained
    from myna.evaluate.hellaswag import read_items

    assert data is not None
    assert call.explain is not None
    if call.overlap is not None:
        raise UsageError("--overlap is about all items, and --explain shows one; leave one of them out")
    items = read_items(data, call.rendering or "lecture")
    if not 0 <= call.explain < len(items):
        raise UsageError(
            f"--explain {call.explain}: {data} has items 0 to {len(items) - 1:,}; give one of those"
        )
    item = items[call.explain]
    (question,) = as_questions([item], call, running)
    found = explained(
        running.opened.model, question, running.tokenizer, autocast_dtype=running.precision.dtype
    )
    return {"item": call.explain, "line": item.line} | found.to_dict(), found.lines()


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
    reads=("rendering", "style", "overlap", "explain"),
    costs=("hellaswag_acc", "hellaswag_acc_token", "hellaswag_acc_char", "hellaswag_letters_acc"),
    explain=explain,
)
