"""`myna compare`: what several models write with the same prompt and seed, side by side."""

import contextlib
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, write_any_character
from myna.commands.model_flags import RunningFlags, checked_name, open_to_run
from myna.commands.out import folder_of_results
from myna.commands.text_flags import TextFlags, read_prompts, sampling_of, warn_of_cut
from myna.errors import CheckpointError, ModelError, OutputError, UsageError
from myna.progress import Progress
from myna.run import Run
from myna.store.here import address_of, here

if TYPE_CHECKING:
    from myna.evaluate.compare import Column
    from myna.generate.sampling import Sampling

LEAST = 2


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Let several models continue the same text with the same seed, and show side by side what they write."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL...")]
    """Run folders (the newest checkpoint of each), checkpoints, Hugging Face folders, URLs of these, or hub names such
    as gpt2."""
    checkpoints: bool = False
    """Take all checkpoints of a run, oldest first, in place of its newest one."""
    texts: Annotated[TextFlags, tyro.conf.arg(name="")]
    running: Annotated[RunningFlags, tyro.conf.arg(name="")]
    json: bool = False
    """Print a JSON object for each text, one per line, as `myna sample --json` does."""
    html: Path | None = None
    """Write the comparison to this file (.html), too: one page that needs no network."""


@dataclass(frozen=True)
class Wanted:
    """A model to be opened, and its name for people. One of a run's many checkpoints may be damaged; it is then left
    out."""

    place: str
    name: str
    may_be_damaged: bool = False


def main(args: Sequence[str]) -> None:
    """Runs `myna compare`."""
    call = parse(Compare, args, command="compare")
    models = wanted(call)
    check_page(call.html)
    prompts = read_prompts(call.texts)
    sampling = sampling_of(call.texts.sampling, call.texts.max_tokens)
    write_any_character()
    page = call.html
    with contextlib.nullcontext() if page is None else folder_of_results(page.parent, [page.name]):
        columns = all_columns(call, models, prompts, sampling)
        if not call.json:
            show(columns, sampling)
        if page is not None:
            from myna.evaluate.compare_page import compare_page

            compare_page(columns, sampling).write(page)
            if not call.json:
                print(page)


def all_columns(
    call: Compare, models: Sequence[Wanted], prompts: Sequence[str], sampling: "Sampling"
) -> "list[Column]":
    """What each model writes; with `--json` it is printed as soon as it is there.

    Raises:
        CheckpointError: no checkpoint is sound. Others: see `column_of`.
    """
    columns: list[Column] = []
    with Progress("models", len(models), shown=not call.json) as progress:
        for model in models:
            column = column_of(model, call, prompts, sampling)
            progress.advance(1)
            if column is not None:
                columns.append(column)
                if call.json:
                    print_json(column, sampling)
    if not columns:
        raise CheckpointError("no checkpoint of what was named is sound; give another model")
    return columns


def check_page(out: Path | None) -> None:
    """
    Raises:
        UsageError: it is not named like a page. OutputError: it is a folder.
    """
    if out is None:
        return
    if out.suffix.lower() != ".html":
        raise UsageError(f"--html {out}: the page is HTML; give a name that ends in .html")
    if out.is_dir():
        raise OutputError(f"--html {out} is a folder; give a file in it")


def wanted(call: Compare) -> list[Wanted]:
    """The models to compare, two or more.

    Raises:
        UsageError: there are fewer. UnreadableError: a run's folder can't be listed.
    """
    from myna.model.remote import fetch_all, fetch_model

    found = []
    for name in call.models:
        # checked here, since nothing is opened before all of them are known
        path = here(checked_name(name), fetch_all if call.checkpoints else fetch_model, ModelError)
        checkpoints = checkpoints_of(Run(path)) if call.checkpoints else []
        found += [Wanted(str(one), address_of(one), may_be_damaged=True) for one in checkpoints] or [
            Wanted(name, name)
        ]
    if len(found) < LEAST:
        what = "name another MODEL, or give --checkpoints for all of a run's"
        raise UsageError(
            f"a comparison takes two models or more, and here {'is one' if found else 'is none'}; {what}"
        )
    return found


def checkpoints_of(run: Run) -> list[Path]:
    """A run's checkpoints, oldest first; none where it is no run."""
    from myna.model.checkpoint import list_checkpoints

    return list_checkpoints(run.checkpoints)[::-1]


def column_of(model: Wanted, call: Compare, prompts: Sequence[str], sampling: "Sampling") -> "Column | None":
    """What a model writes; None for a damaged one of many. Its weights are let go at the end.

    Raises:
        CheckpointError, ModelError, DeviceError: see `open_to_run`.
    """
    from myna.evaluate.compare import Column
    from myna.generate.many import in_order, rows_at_once
    from myna.generate.text import TextEngine

    try:
        running = open_to_run(model.place, call.running)
    except CheckpointError as error:
        if not model.may_be_damaged:
            raise
        warnings.warn(f"{error}; {model.name} is left out", stacklevel=2)
        return None
    running.store()
    network = running.opened.model
    warn_of_cut(prompts, running.tokenizer, network.config.block_size)
    engine = TextEngine(network, running.tokenizer, autocast_dtype=running.precision.dtype)
    together = rows_at_once(network.config)
    return Column(model.name, list(in_order(engine, prompts, call.texts.count, sampling, together)))


def print_json(column: "Column", sampling: "Sampling") -> None:
    """A line for each text of a model."""
    from myna.evaluate.compare import records

    for record in records(column, sampling.seed):
        print(json.dumps(record, ensure_ascii=False), flush=True)


def show(columns: "Sequence[Column]", sampling: "Sampling") -> None:
    """Columns where a terminal has room for them, else blocks; then how the texts were drawn."""
    from rich.console import Console

    from myna.evaluate.compare import blocks, fits, settings_line, table

    console = Console(highlight=False)
    if sys.stdout.isatty() and fits(columns, console.width):
        console.print(table(columns))
        console.print(settings_line(sampling), style="dim")
        return
    for line in blocks(columns):
        print(line)
    print(f"({settings_line(sampling)})")
