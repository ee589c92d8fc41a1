"""How far a prepare is: a bar on a terminal, a plain line now and then when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

LINE_EVERY_S = 10.0


class Report(Protocol):
    """Told of each piece that is written."""

    def __call__(self, input_bytes: int, text_bytes: int, tokens: int) -> None: ...


def _rate(text_bytes: int, tokens: int, seconds: float) -> str:
    return f"{tokens:,} tokens, {text_bytes / 1e6 / max(seconds, 1e-9):.0f} MB/s"


@contextmanager
def progress(total_bytes: int | None, done_bytes: int, quiet: bool) -> Iterator[Report]:
    """Shows progress on stderr.

    Args:
        total_bytes: of the corpus's files; None if unknown.
        done_bytes: what an earlier call did.
    Yields:
        a function that takes a piece's input bytes, text bytes and tokens.
    """
    counts = {"input": done_bytes, "text": 0, "tokens": 0}
    began = last = time.monotonic()
    bar: Any = None
    if not quiet and sys.stderr.isatty():
        bar, task = _bar(total_bytes, done_bytes)

    def report(input_bytes: int, text_bytes: int, tokens: int) -> None:
        nonlocal last
        counts["input"] += input_bytes
        counts["text"] += text_bytes
        counts["tokens"] += tokens
        now = time.monotonic()
        rate = _rate(counts["text"], counts["tokens"], now - began)
        if bar is not None:
            bar.update(task, completed=counts["input"], rate=rate)
        elif not quiet and now - last >= LINE_EVERY_S:
            last = now
            print(
                f"prepare: {rate}{_remaining(counts['input'], done_bytes, total_bytes, now - began)}",
                file=sys.stderr,
            )

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()


def _remaining(done: int, done_before: int, total: int | None, seconds: float) -> str:
    if not total or done <= done_before:
        return ""
    left = (total - done) * seconds / (done - done_before)
    return f", {100 * done / total:.0f}%, {left:.0f} s left"


def _bar(total_bytes: int | None, done_bytes: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("prepare"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.start()
    return bar, bar.add_task("prepare", total=total_bytes, completed=done_bytes, rate="")
