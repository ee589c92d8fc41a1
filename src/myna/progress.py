"""What a person sees of long work: a bar on a terminal, a plain line now and then where the output is piped."""

import os
import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_S = 10.0


def speak(text: str) -> None:
    """Prints a line. Where the reader of a pipe has gone (`myna train | head`), the work goes on in silence."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def counted(number: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "layer"), counted(1200, "layer")
    ('1 layer', '1,200 layers')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """
    >>> clock(65), clock(7265)
    ('1:05', '2:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows how much of `total` is done. A context: the bar goes away at its end.

    Args:
        what: names the work, at the beginning of the bar and of each line.
        total: units in all; None where nobody knows, and then neither a share nor a remaining time is shown.
        done: units finished before, by an earlier call.
        counted: show "done/total". False shows a percentage, for units such as bytes.
        stream: where to show it; default stderr.
        shown: False shows nothing (other ranks, `quiet`).
        line_every_s: seconds between plain lines; 0 prints one for each `update`.
        at_once: print the first `update` as a line, too.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        done: int = 0,
        counted: bool = True,
        stream: IO[str] | None = None,
        shown: bool = True,
        line_every_s: float = LINE_EVERY_S,
        at_once: bool = False,
    ):
        self.what, self.total, self.done, self.counted = what, total, done, counted
        self.stream = sys.stderr if stream is None else stream
        self.shown, self.line_every_s = shown, line_every_s
        self._at_start, self._began = done, time.monotonic()
        self._next_line = self._began if at_once else self._began + line_every_s
        self._bar: Bar | None = None
        if shown and self.stream.isatty():
            self._bar = _bar(what, counted, self.stream)
            self._task = self._bar.add_task("", total=total, completed=done, status="")

    @property
    def is_bar(self) -> bool:
        """Whether it is a bar, and not lines."""
        return self._bar is not None

    def advance(self, units: int, status: str = "") -> None:
        """So many more units are done."""
        self.update(self.done + units, status)

    def update(
        self, done: int, status: str = "", *, seconds_left: float | None = None, line: bool = False
    ) -> None:
        """So many units are done in all.

        Args:
            status: what else to show, such as a rate.
            seconds_left: the remaining time where the caller knows it better than the mean rate tells.
            line: print a plain line now, whenever the one before was.
        """
        self.done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, status=status)
            return
        now = time.monotonic()
        if self.shown and (line or now >= self._next_line):
            self._next_line = now + self.line_every_s
            self._print(" · ".join(filter(None, [self._count(), status, self._left(seconds_left, now)])))

    def say(self, text: str) -> None:
        """A line by itself, above the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        if self.stream is sys.stdout:
            speak(text)
        else:
            print(text, file=self.stream, flush=True)

    def _count(self) -> str:
        if self.counted:
            return f"{self.what} {self.done:,}" + ("" if self.total is None else f"/{self.total:,}")
        return self.what if not self.total else f"{self.what} {100 * self.done / self.total:.0f}%"

    def _left(self, seconds: float | None, now: float) -> str:
        if self.total is None or self.done <= self._at_start:
            return ""
        if seconds is None:
            seconds = (self.total - self.done) * (now - self._began) / (self.done - self._at_start)
        return f"{clock(seconds)} left"

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(what: str, counted: bool, stream: IO[str]) -> "Bar":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn() if counted else TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=Console(file=stream, highlight=False),
        transient=True,
        # Else rich would send what is printed meanwhile to the bar's stream, past the file or pipe that stdout is.
        redirect_stdout=sys.stdout.isatty(),
    )
