"""What a person sees while the ladder is measured: a bar on a terminal, a line a rung elsewhere; on stderr."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from myna.bench.ladder import WARM_UP_STEPS
from myna.bench.measure import Watcher


class Bar(Watcher):
    """A bar over the steps of all rungs."""

    def __init__(self, rungs: int, steps: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.steps_of_rung = 1 + WARM_UP_STEPS + steps
        self.task = self.progress.add_task("", total=rungs * self.steps_of_rung)
        self.finished_rungs = 0

    def begin(self, title: str) -> None:
        self.progress.update(self.task, description=title)

    def step(self) -> None:
        self.progress.advance(self.task)

    def end(self, record: dict[str, Any]) -> None:
        self.finished_rungs += 1  # one that was skipped too
        self.progress.update(self.task, completed=self.finished_rungs * self.steps_of_rung)


class Lines(Watcher):
    """A line for each rung."""

    def end(self, record: dict[str, Any]) -> None:
        if "skipped" in record:
            text = f"skipped: {record['skipped']}"
        else:
            text = f"{record['ms_per_step']:,.1f} ms a step, {record['tokens_per_second']:,.0f} tokens/s"
        print(f"{record['title']}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(rungs: int, steps: int) -> Iterator[Watcher]:
    """A watcher that shows how so many rungs of so many timed steps go on."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    bar = Bar(rungs, steps)
    with bar.progress:
        yield bar
