"""What a task of `myna eval` is: how its data is found, how it scores, and which flags it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from myna.commands.model_flags import Running, RunningModelFlags
from myna.store.here import here


@dataclass(frozen=True)
class Eval:
    """Score a model."""

    model: Annotated[RunningModelFlags, tyro.conf.arg(name="")]
    task: str
    """What to score; the tasks are listed above."""
    data: str | None = None
    """Where the data lies: a path, or the URL of a dataset or a file on another store.
    val: a prepared dataset (see `myna prepare`); default for a run: the dataset that it trained on.
    hellaswag: a file in its official format (JSONL); default: the official one, fetched once (12 MB).
    mmlu: its folder, as the authors or the hub have it. core: the folder of nanochat's eval_bundle.
    harness: a folder of task files (YAML). They may name Python functions, which run.
    perplexity: a text file (UTF-8; also .jsonl, .parquet), a folder of them, or a prepared dataset."""
    json: bool = False
    """Print one JSON object, with the keys of metrics.jsonl."""
    # From here on: flags of some tasks. None is "not given": a flag that the task does not read is refused.
    sequence_length: int | None = None
    """val, perplexity: tokens in a window. Default: all positions of the model; for val of a run, what the run was
    trained with."""
    stride: int | None = None
    """perplexity: tokens from one window to the next; each is scored once. Default: half of a window."""
    rendering: Literal["lecture", "harness"] | None = None
    """hellaswag: how an item becomes text: as in the lecture (the default), or as lm-evaluation-harness does."""

    style: Literal["letters", "ending"] | None = None
    """hellaswag, mmlu: letters: the prompt lists the choices, and the model picks a letter.
    ending: each choice is scored as it stands. Default: ending for hellaswag, letters for mmlu."""
    overlap: Path | None = None
    """hellaswag: what `myna data overlap` wrote: accuracies also of the items that the training text holds, and of
    those that it does not."""
    explain: int | None = None
    """hellaswag: show item N alone, from 0: its rows, what is scored, the loss of each token, and what that chooses."""
    shots: int | None = None
    """mmlu, harness: examples before each question. Default: 5 for mmlu; what the task's file says for harness."""

    def data_here(self) -> Path | None:
        """Where what --data names lies on this machine: of a dataset the validation split. None where it was not given.

        Raises:
            UsageError: a path that can't be one. DownloadError, DataError: see `fetch_validation`.
        """
        from myna.data.remote import fetch_validation

        return None if self.data is None else here(self.data, fetch_validation)

    @property
    def name(self) -> str:
        """The task without its part."""
        return self.task.partition(":")[0]

    @property
    def part(self) -> str:
        """What follows the colon of --task NAME:PART; "" where there is none."""
        return self.task.partition(":")[2]


@dataclass(frozen=True)
class Task:
    """A line of the table.

    Attributes:
        summary: for --help.
        find_data: where its data lies, from --data or without; None where it needs none. It is called before the model
            is opened, and raises UsageError where nothing is named.
        score: the call, the model and the data to the keys and values that are printed, floats and whole numbers. Of a
            key with `_stderr`, and of `NAME_chance`, people see the value beside the accuracy.
        reads: the flags, by their field in `Eval`, that this task reads, besides those of every task.
        costs: the keys that `--weights` may worsen: their difference is printed.
        part: what follows the name in --task NAME:PART; "" where nothing does.
        shown: the scores as lines for people, where one a key would be too many.
        explain: one item in full, for `--explain N`: as JSON, and as lines for people.
    """

    summary: str
    find_data: Callable[[Eval], Path | None]
    score: Callable[[Eval, Running, Path | None], dict[str, Any]]
    reads: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()
    part: str = ""
    shown: Callable[[dict[str, Any]], dict[str, str]] | None = None
    explain: Callable[[Eval, Running, Path | None], tuple[dict[str, Any], list[str]]] | None = None
