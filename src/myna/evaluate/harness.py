"""lm-evaluation-harness with a model of ours: its tasks by name or from your own files, and its command line.

    python -m myna.evaluate.harness --model myna --model_args pretrained=RUN --tasks hellaswag

is the harness's own command line (`lm-eval`), with our model class registered as `myna`. `myna eval MODEL --task
harness:NAME` runs the same tasks from ours. What a task asks of a model is in harness_model.py.

Task files may name Python functions, which run: use files that you trust.
"""

import contextlib
import difflib
import importlib.util
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myna.errors import DataError, MynaError, UsageError, first_line

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from myna.evaluate.harness_model import MynaLM

FEWSHOT_SEED = 1234  # the harness's own


def require_harness() -> None:
    """
    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError("lm-evaluation-harness is not installed; install it: pip install 'myna[eval]'")


def run_tasks(
    model: "MynaLM", names: Sequence[str], folder: Path | None = None, shots: int | None = None
) -> dict[str, Any]:
    """Runs tasks of the harness, or groups of them.

    Args:
        folder: of task files, where the names are looked for first.
        shots: examples before each item; None for what the task says, else 0.
    Returns:
        what `lm_eval.evaluate` returns, with the samples.
    Raises:
        UsageError: no such task. DataError: a task or its data cannot be had or used.
    """
    from lm_eval.evaluator import evaluate

    manager = _manager(names, folder)
    with _theirs(f"lm-eval cannot load {', '.join(names)}"):
        loaded = manager.load(list(names))
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None or (
                shots is not None and task.get_config("num_fewshot")
            ):
                task.set_config(key="num_fewshot", value=shots or 0)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
    with _theirs(f"lm-eval cannot run {', '.join(names)}"):
        results = evaluate(model, loaded)
    assert results is not None
    return results


def harness_scores(results: dict[str, Any], cut: int) -> dict[str, float]:
    """The harness's results as `harness_METRIC/TASK`, each with `harness_METRIC_stderr/TASK` where it has one.

    A metric of a filter has the filter's name after a comma: `harness_exact_match,strict-match/gsm8k`.

    Raises:
        DataError: no metric is a number.
    """
    found: dict[str, float] = {}
    for task, metrics in (results["results"] | results.get("groups", {})).items():
        for key, value in metrics.items():
            metric, _, chosen = key.partition(",")
            if not chosen or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            name = metric.removesuffix("_stderr") + ("" if chosen == "none" else f",{chosen}")
            found[f"harness_{name}{'_stderr' if metric.endswith('_stderr') else ''}/{task}"] = value
        if task in results.get("n-samples", {}):
            found[f"harness_items/{task}"] = results["n-samples"][task]["effective"]
            found[f"harness_shots/{task}"] = results["n-shot"][task]
        if chance := _chance(results.get("samples", {}).get(task, []), results["configs"].get(task, {})):
            found[f"harness_chance/{task}"] = chance
    if not found:
        raise DataError(
            f"lm-eval gives no number for {', '.join(results['results'])}; see the task's metric_list"
        )
    return found | {"harness_cut": cut}


def _chance(samples: Sequence[dict[str, Any]], config: dict[str, Any]) -> float | None:
    """What guessing reaches in a task of choices; None for a task of another kind."""
    if config.get("output_type") != "multiple_choice" or not samples:
        return None
    choices = [len({arguments[1] for arguments in sample["arguments"]}) for sample in samples]
    return sum(1 / n for n in choices) / len(choices)


def _manager(names: Sequence[str], folder: Path | None) -> "TaskManager":
    """An index of tasks that has these: to read all of the harness's own files takes a minute or more.

    Raises:
        UsageError: a name is in none; names the nearest.
    """
    import lm_eval.tasks

    if folder is not None and not folder.is_dir():
        raise UsageError(f"--data {folder} is no folder; give one with the harness's task files (YAML)")
    own = Path(lm_eval.tasks.__file__).parent
    given = [folder] if folder else []
    likely = [place for name in names for place in _folders_of(name, own)]
    for places, everything in ((given, False), ([*likely, *given], False), (given, True)):
        manager = lm_eval.tasks.TaskManager(include_path=places, include_defaults=everything)
        missing = [name for name in names if name not in manager.task_index]
        if not missing:
            return manager
    near = difflib.get_close_matches(missing[0], manager.all_tasks, n=3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "`python -m myna.evaluate.harness ls tasks` lists them"
    )
    raise UsageError(f"lm-eval has no task {missing[0]!r}; {hint}")


def _folders_of(name: str, own: Path) -> list[Path]:
    """Where the harness may keep a task: arc_easy is in arc.

    >>> _folders_of("no_such_task", Path("/"))
    []
    """
    words = name.split("_")
    starts = ("_".join(words[:n]) for n in range(len(words), 0, -1))
    return [own / start for start in starts if (own / start).is_dir()][:1]


@contextlib.contextmanager
def _theirs(what: str) -> Iterator[None]:
    """The block runs the harness; what goes wrong in it, in a task's file or in its data, is one line.

    Raises:
        DataError: that line.
    """
    from myna.evaluate import harness_model

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except MynaError:
        raise
    except Exception as error:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == harness_model.__file__:
                raise  # a defect of ours
            trace = trace.tb_next
        raise DataError(
            f"{what}: {type(error).__name__}: {first_line(error)}; see the task's file and its data (the harness's own "
            "tasks download theirs), or give task files of your own with --data"
        ) from error
    finally:
        logger.setLevel(level)


def main(args: Sequence[str]) -> int:
    """The harness's own command line, with our model class registered; returns the exit code."""
    try:
        require_harness()
        from lm_eval.__main__ import cli_evaluate

        import myna.evaluate.harness_model  # noqa: F401 (registers the class)

        sys.argv = ["python -m myna.evaluate.harness", *args]
        cli_evaluate()
    except MynaError as error:
        print(f"myna: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
