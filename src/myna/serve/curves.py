"""A run's records as curves for the page: read on from a byte, one record a step, thinned to what a screen shows."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myna.parsing import number, whole

MOST_POINTS = 2000  # of the training loss in one answer; a wide screen has as many columns
EXACT_POINTS = 200  # the newest of them, each a single step
MOST_BYTES = 64 << 20  # read for one answer; more come with the next


@dataclass(frozen=True)
class Chunk:
    """What was appended to a file of records.

    Attributes:
        next: the byte at which the next look begins; before a line that is still being written.
        more: the file goes on.
        restarted: the file is shorter than before, so it is another one, and this is its beginning.
    """

    records: list[dict[str, Any]]
    next: int
    more: bool
    restarted: bool

    def about(self) -> dict[str, Any]:
        """What an answer says of it, besides the records."""
        return {"next": self.next, "more": self.more, "restarted": self.restarted}


def read_on(path: Path, after: int, most_bytes: int = MOST_BYTES) -> Chunk:
    """The records of a file from a byte on. A file that is absent, or is no file, has none.

    A line without its end is left for the next look: its writer may be at it. A line that a crash cut has no end before
    the next record begins, and then it is passed over.
    """
    try:
        if not path.is_file():
            return Chunk([], 0, False, after > 0)
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            restarted = after > size
            begin = 0 if restarted else after
            file.seek(begin)
            data = file.read(most_bytes)
    except OSError:  # it went away between two looks, or may not be read
        return Chunk([], 0, False, after > 0)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == most_bytes:
        end = len(data)  # no record is as long: leave it behind
    more = end > 0 and begin + len(data) < size
    return Chunk(list(_records(data[:end])), begin + end, more, restarted)


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        try:
            record = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue  # a line that a crash cut
        if isinstance(record, dict):
            yield record


@dataclass(frozen=True)
class Point:
    """A value of a run at a step."""

    step: int
    tokens: int
    record: dict[str, Any]


def points(records: Sequence[dict[str, Any]], key: str) -> list[Point]:
    """The records that have a number under a key, by step; of a step that ran twice the later one."""
    latest: dict[int, Point] = {}
    for record in records:
        step, tokens = whole(record, "step"), whole(record, "tokens")
        if step is not None and tokens is not None and number(record, key) is not None:
            latest[step] = Point(step, tokens, record)
    return [latest[step] for step in sorted(latest)]


def columns(found: Sequence[Point], **keys: str) -> dict[str, list[Any]]:
    """Points as columns: step, tokens, and a column of each key's values."""
    return {
        "step": [point.step for point in found],
        "tokens": [point.tokens for point in found],
    } | {name: [number(point.record, key) for point in found] for name, key in keys.items()}


def thinned(
    found: Sequence[Point], key: str, most: int = MOST_POINTS, exact: int = EXACT_POINTS
) -> dict[str, list[Any]]:
    """A curve in at most `most` points: the last `exact` as they are, the others in groups of neighbours.

    Returns:
        columns: step and tokens (of a group's last step), its mean, low and high, and n, the steps in it.

    >>> found = [Point(n, 10 * n, {"loss": float(n)}) for n in range(10)]
    >>> thin = thinned(found, "loss", most=5, exact=2)
    >>> thin["step"], thin["mean"], thin["n"]
    ([2, 5, 7, 8, 9], [1.0, 4.0, 6.5, 8.0, 9.0], [3, 3, 2, 1, 1])
    """
    size = 1 if len(found) <= most else math.ceil((len(found) - exact) / (most - exact))
    old = len(found) - exact if size > 1 else len(found)
    groups = [found[begin : min(begin + size, old)] for begin in range(0, old, size)]
    groups += [[point] for point in found[old:]]
    values = [[float(point.record[key]) for point in group] for group in groups]
    return {
        "step": [group[-1].step for group in groups],
        "tokens": [group[-1].tokens for group in groups],
        "mean": [math.fsum(one) / len(one) for one in values],
        "low": [min(one) for one in values],
        "high": [max(one) for one in values],
        "n": [len(one) for one in values],
    }


def curves(chunk: Chunk) -> dict[str, Any]:
    """The answer of /v1/runs/{name}/metrics."""
    train = points(chunk.records, "train_loss")
    latest = train[-1].record if train else {}
    scored = points(chunk.records, "hellaswag_acc_token")
    return chunk.about() | {
        "train": thinned(train, "train_loss"),
        "val": columns(points(chunk.records, "val_loss"), loss="val_loss", bits_per_byte="val_bits_per_byte"),
        "hellaswag": columns(scored, accuracy="hellaswag_acc_token", items="hellaswag_items"),
        "latest": {
            key: number(latest, key)
            for key in ("train_loss", "tokens_per_second", "mfu", "learning_rate", "grad_norm")
        },
    }
