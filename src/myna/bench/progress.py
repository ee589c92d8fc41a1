"""What a person sees while the ladder is measured: a bar on a terminal, a line a rung elsewhere; on stderr."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from myna.bench.ladder import WARM_UP_STEPS
from myna.bench.measure import Watcher
from myna.progress import Progress


class Shown(Watcher):
    """A watcher that shows how so many rungs of so many timed steps go on."""

    def __init__(self, rungs: int, steps: int):
        self.steps_of_rung = 1 + WARM_UP_STEPS + steps
        self.progress = Progress("bench", rungs * self.steps_of_rung, counted=False, line_every_s=math.inf)
        self.title, self.finished_rungs = "", 0

    def begin(self, title: str) -> None:
        self.title = title
        self.progress.advance(0, title)

    def step(self) -> None:
        self.progress.advance(1, self.title)

    def end(self, record: dict[str, Any]) -> None:
        self.finished_rungs += 1  # one that was skipped too
        self.progress.update(self.finished_rungs * self.steps_of_rung, self.title)
        if self.progress.is_bar:
            return
        if "skipped" in record:
            text = f"skipped: {record['skipped']}"
        else:
            text = f"{record['ms_per_step']:,.1f} ms a step, {record['tokens_per_second']:,.0f} tokens/s"
        self.progress.say(f"{record['title']}: {text}")


@contextlib.contextmanager
def shown(rungs: int, steps: int) -> Iterator[Watcher]:
    """That watcher, until the end of the block."""
    watcher = Shown(rungs, steps)
    with watcher.progress:
        yield watcher
