"""`myna eval`: scores of a model, by tasks.

A task is a file in eval_tasks/ and a line in `TASKS`; a flag of its own is a field of `Eval`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from myna.commands import parse, refuse_empty, write_any_character
from myna.commands.eval_tasks.core import CORE
from myna.commands.eval_tasks.harness import HARNESS
from myna.commands.eval_tasks.hellaswag import HELLASWAG
from myna.commands.eval_tasks.mmlu import MMLU
from myna.commands.eval_tasks.perplexity import PERPLEXITY
from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.eval_tasks.val import VAL
from myna.commands.model_flags import Running, open_to_run
from myna.errors import UsageError, unknown_name
from myna.settings import flag
from myna.store.here import address_of

TASKS: dict[str, Task] = {
    "val": VAL,
    "hellaswag": HELLASWAG,
    "mmlu": MMLU,
    "core": CORE,
    "harness": HARNESS,
    "perplexity": PERPLEXITY,
}


def main(args: Sequence[str]) -> None:
    """Runs `myna eval`."""
    refuse_empty(args)
    call = parse(Eval, args, command="eval", description=described())
    task = task_of(call)
    data = task.find_data(call)
    running = open_to_run(call.model.model, call.model, generates=False)
    if call.explain is not None:
        explain_item(call, task, running, data)
        return
    asked = call.model.weights not in ("auto", "fp32")
    as_read = task.score(call, running, data) if asked else {}
    running.store()
    scores = task.score(call, running, data)
    # What weights that were asked for cost: the score with them, less the score with those that were read.
    scores |= {f"{key}_cost": scores[key] - as_read[key] for key in task.costs if key in as_read}
    about = said_of(call, running, data)
    if call.json:
        print(json.dumps(about | scores, ensure_ascii=False, allow_nan=False))
        return
    show(about | (task.shown or for_people)(scores))


def explain_item(call: Eval, task: Task, running: Running, data: Path | None) -> None:
    """Prints one item in full, in place of the scores."""
    assert task.explain is not None  # only tasks that have it read the flag
    running.store()
    found, lines = task.explain(call, running, data)
    about = said_of(call, running, data)
    if call.json:
        print(json.dumps(about | found, ensure_ascii=False, allow_nan=False))
        return
    write_any_character()
    show(about | {"item": f"{found['item']} (line {found['line']} of the file)"})
    print("\n".join(["", *lines]))


def said_of(call: Eval, running: Running, data: Path | None) -> dict[str, str]:
    """What was scored, on what, and how."""
    return {
        "model": address_of(running.opened.path),
        "task": call.task,
        **({} if data is None else {"data": address_of(data)}),
        "weights": running.weights,
        "precision": running.precision.name,
    }


def show(lines: dict[str, str]) -> None:
    """Prints a key and its value a line."""
    width = max(20, *map(len, lines))
    for key, shown in lines.items():
        print(f"{key:<{width}} {shown}")


def described() -> str:
    """What --help says first: the tasks, one per line."""
    names = {name: f"{name}:{task.part}" if task.part else name for name, task in TASKS.items()}
    lines = [f"  {names[name]:<12} {task.summary}" for name, task in TASKS.items()]
    return "\n".join(["Score a model. The tasks:", "", *lines])


def task_of(call: Eval) -> Task:
    """The line of the table.

    Raises:
        UsageError: there is none of that name, a part is missing or too many, or a flag is of another task.
    """
    if call.name not in TASKS:
        raise unknown_name("task", call.name, list(TASKS))
    task = TASKS[call.name]
    if task.part and not call.part:
        raise UsageError(f"--task {call.name} needs a name behind it; give --task {call.name}:{task.part}")
    if not task.part and ":" in call.task:
        raise UsageError(f"--task {call.name} has no parts; give --task {call.name}")
    for field in dataclasses.fields(Eval):
        readers = [name for name, one in TASKS.items() if field.name in one.reads]
        if readers and call.name not in readers and getattr(call, field.name) is not None:
            raise UsageError(
                f"{flag(field.name)} is a flag of --task {' and '.join(readers)}, and this is --task {call.name}; "
                "leave it out"
            )
    return task


def for_people(scores: dict[str, Any]) -> dict[str, str]:
    """Scores as text: an accuracy with its standard error, and chance beside it.

    A key of a part, as in `quiz_acc/history`, has its own standard error, and the part's chance or the task's.

    >>> for_people({"quiz_acc": 0.5, "quiz_acc_stderr": 0.05, "quiz_chance": 0.25, "quiz_items": 1000})
    {'quiz_acc': '0.5000 ± 0.0500 (chance 0.2500)', 'quiz_items': '1,000'}
    >>> for_people({"quiz_acc/art": 0.5, "quiz_acc_stderr/art": 0.05, "quiz_chance/art": 0.25})
    {'quiz_acc/art': '0.5000 ± 0.0500 (chance 0.2500)'}
    """
    shown = {}
    for key, value in scores.items():
        name, slash, part = key.partition("/")
        if name.endswith(("_stderr", "_chance")):
            continue
        shown[key] = (
            f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        )
        if (error := scores.get(f"{name}_stderr{slash}{part}")) is not None:
            task = name.partition("_")[0]
            chance = scores.get(f"{task}_chance{slash}{part}", scores.get(f"{task}_chance"))
            shown[key] += f" ± {error:.4f}" + (f" (chance {chance:.4f})" if chance else "")
    return shown
