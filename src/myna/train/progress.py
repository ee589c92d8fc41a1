"""What a person sees while training: a bar with rate and remaining time on a terminal, plain lines elsewhere."""

import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def speak(text: str) -> None:
    """Prints a line. Where the reader of a pipe has gone (`myna train | head`), training goes on unheard."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class TrainingProgress:
    """Shows steps as they finish.

    Args:
        shown: False on ranks that don't speak.
        line_every_s: seconds between plain lines where output is piped.
    """

    def __init__(self, *, first_step: int, steps: int, shown: bool = True, line_every_s: float = 10.0):
        self.shown = shown
        self.steps = steps
        self.line_every_s = line_every_s
        self.console = Console(file=sys.stdout, highlight=False)
        self.bar: Progress | None = None
        self.seconds: float | None = None  # a step's, smoothed
        self.next_line = time.monotonic()
        if shown and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("step"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task("", total=steps, completed=first_step, status="")

    def step(
        self, step: int, *, loss: float, learning_rate: float, tokens_per_second: float, seconds: float
    ) -> None:
        """One more finished update."""
        if not self.shown:
            return
        # What is shown moves slowly: one slow step is no forecast. metrics.jsonl has each step's own.
        self.seconds = seconds if self.seconds is None else 0.9 * self.seconds + 0.1 * seconds
        status = f"loss {loss:.4f} · {tokens_per_second * seconds / self.seconds:,.0f} tokens/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, status=status)
        elif time.monotonic() >= self.next_line or step == self.steps:
            self.next_line = time.monotonic() + self.line_every_s
            remaining = (self.steps - step) * self.seconds
            speak(f"step {step}/{self.steps} · {status} · lr {learning_rate:.2e} · {_clock(remaining)} left")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self.shown:
            return
        if self.bar is not None:
            self.bar.console.print(text, markup=False, soft_wrap=True)
        else:
            speak(text)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
