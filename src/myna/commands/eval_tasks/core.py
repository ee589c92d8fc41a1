"""`myna eval --task core`: the mean of 22 tasks, measured from chance."""

from pathlib import Path
from typing import Any

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.model_flags import Running
from myna.errors import UsageError
from myna.progress import Progress


def data_path(call: Eval) -> Path:
    """The published bundle, unpacked.

    Raises:
        UsageError: it was not named.
    """
    data = call.data_here()
    if data is None:
        raise UsageError(
            "--task core needs --data FOLDER: the eval_bundle that nanochat publishes, unpacked (core.yaml is in it)"
        )
    return data


def core(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """The accuracy of each task, from 0 and from chance, and their mean where all 22 are there.

    Raises:
        DataError: a file is missing or is not what it should be; names it, and the line.
    """
    from myna.evaluate.core import core_scores, core_sums
    from myna.evaluate.core_bundle import read_bundle

    assert data is not None
    tasks = read_bundle(data)
    with Progress("CORE items", sum(len(task.items) for task in tasks)) as progress:
        sums = core_sums(
            running.opened.model,
            tasks,
            running.tokenizer,
            autocast_dtype=running.precision.dtype,
            on_items=progress.advance,
        )
    return core_scores(sums, tasks)


def shown(scores: dict[str, Any]) -> dict[str, str]:
    """A line a task, and CORE beside what GPT-2 reached."""
    from myna.references import CORE

    lines = {}
    for key in scores:
        head, _, label = key.partition("/")
        if head == "core_acc":
            of = {
                name: scores[f"core_{name}/{label}"]
                for name in ("chance", "centred", "shots", "items", "cut")
            }
            lines[label] = (
                f"{scores[key]:.4f} ± {scores[f'core_acc_stderr/{label}']:.4f} (chance {of['chance']:.4f}), centred "
                f"{of['centred']:+.4f} ± {scores[f'core_centred_stderr/{label}']:.4f}; {of['shots']}-shot, "
                f"{of['items']:,} items, {of['cut']:,} cut"
            )
    if "core" in scores:
        gpt2 = ", ".join(f"{size} {value:.4f}" for size, value in CORE.items())
        lines["CORE"] = f"{scores['core']:.4f} ± {scores['core_stderr']:.4f} (chance 0; GPT-2: {gpt2})"
    else:
        lines["CORE"] = f"not given: it is the mean of 22 tasks, and these are {len(lines)}"
    if "core_cost" in scores:
        lines["core_cost"] = f"{scores['core_cost']:.4f}"
    return lines


CORE = Task(
    summary="CORE: 22 tasks with examples in the prompt, measured from chance; one number for a base model",
    find_data=data_path,
    score=core,
    costs=("core",),
    shown=shown,
)
