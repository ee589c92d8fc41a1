"""`myna eval --task mmlu`: 57 subjects; the model picks a letter."""

from pathlib import Path
from typing import Any

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.model_flags import Running
from myna.errors import UsageError
from myna.progress import Progress

SHOTS = 5  # as the paper has it


def data_path(call: Eval) -> Path:
    """MMLU's folder.

    Raises:
        UsageError: it was not named, or --shots is negative.
    """
    data = call.data_here()
    if data is None:
        raise UsageError(
            "--task mmlu needs --data FOLDER: the authors' data.tar unpacked (dev and test are in it), or cais/mmlu of "
            "the hub"
        )
    if call.shots is not None and call.shots < 0:
        raise UsageError(f"--shots is {call.shots}; give 0 or more")
    return data


def mmlu(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """Accuracy over all questions, over subjects, and of each subject.

    Raises:
        DataError: a file is missing or is not what it should be; names it, and the row.
    """
    import torch

    from myna.evaluate.choices import choice_sums
    from myna.evaluate.continuations import n_cut
    from myna.evaluate.mmlu import encode_mmlu, mmlu_scores, read_mmlu

    assert data is not None
    model, style = running.opened.model, call.style or "letters"
    shots = SHOTS if call.shots is None else call.shots
    subjects = read_mmlu(data, shots, style)
    questions = encode_mmlu(subjects, shots, style, running.tokenizer, model.config.block_size)
    with Progress("MMLU questions", sum(map(len, questions))) as progress:
        sums = [
            choice_sums(model, each, autocast_dtype=running.precision.dtype, on_questions=progress.advance)
            for each in questions
        ]
    about = {"style": style, "mmlu_shots": shots, "mmlu_cut": sum(map(n_cut, questions))}
    return about | mmlu_scores(torch.stack(sums), subjects, style)


MMLU = Task(
    summary="57 subjects of four-choice questions, with examples; the model picks a letter",
    find_data=data_path,
    score=mmlu,
    reads=("style", "shots"),
    costs=("mmlu_acc",),
)
