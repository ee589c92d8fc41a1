"""`myna eval --task harness:NAME[,NAME]`: tasks of lm-evaluation-harness."""

from pathlib import Path
from typing import Any

from myna.commands.eval_tasks.task import Eval, Task
from myna.commands.model_flags import Running
from myna.errors import UsageError
from myna.evaluate.harness import require_harness


def data_path(call: Eval) -> Path | None:
    """A folder of task files, where one was named.

    Raises:
        UsageError: lm-eval is not installed, no task is named, or --shots is negative.
    """
    require_harness()
    if not names_in(call):
        raise UsageError(f"--task {call.task} names no task; give --task harness:NAME[,NAME]")
    if call.shots is not None and call.shots < 0:
        raise UsageError(f"--shots is {call.shots}; give 0 or more")
    return call.data_here()


def names_in(call: Eval) -> list[str]:
    """The tasks behind the colon."""
    return [name for name in call.part.split(",") if name]


def harness(call: Eval, running: Running, data: Path | None) -> dict[str, Any]:
    """What the harness gives for each task and each of its metrics.

    Raises:
        UsageError: there is no such task. DataError: it or its data cannot be had or used.
    """
    from myna.evaluate.harness import harness_scores, run_tasks
    from myna.evaluate.harness_model import MynaLM

    model = MynaLM(running.opened.model, running.tokenizer, autocast_dtype=running.precision.dtype)
    results = run_tasks(model, names_in(call), folder=data, shots=call.shots)
    return harness_scores(results, model.cut)


HARNESS = Task(
    summary="tasks of lm-evaluation-harness, by their names there or from a folder of task files",
    find_data=data_path,
    score=harness,
    reads=("shots",),
    part="NAME[,NAME]",
)
