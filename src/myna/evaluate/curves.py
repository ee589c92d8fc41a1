"""What a run has recorded, as series of numbers: the report's picture, its page and its verdict are made from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import DataError
from myna.evaluate.accuracy import standard_error
from myna.parsing import number, whole
from myna.references import HELLASWAG_CHANCE, hellaswag_reference, loss_reference
from myna.run import Run

SMOOTHING_SHARE = 0.02  # the smoothed curve is a running mean over this share of the steps
MOST = 1e12  # no loss and no speed is as large; what is larger is damage, as what is no number
MEASURES = (
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "seconds",
    "input_wait_seconds",
    "skipped",
)


# metrics.jsonl has the validation loss of a mixture's dataset under this and its name.
OF_SOURCE = "val_loss/"


class NothingRecordedError(DataError):
    """A run that has no loss yet."""


@dataclass(frozen=True)
class Series:
    """One number of a run as it went on; each array is (n,). Tokens ascend."""

    steps: np.ndarray
    tokens: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, kept: slice | np.ndarray) -> "Series":
        return Series(self.steps[kept], self.tokens[kept], self.values[kept])


@dataclass(frozen=True)
class Curves:
    """What a run has recorded.

    Attributes:
        name: the folder's; of runs that are read together, with as much before it as tells them apart.
        hellaswag: the accuracy by the mean per token.
        sources: of a mixture, the validation loss of each dataset, by its name.
        measures: the other numbers of a training step, by their names in metrics.jsonl.
        not_finite: the steps whose loss was recorded, and is no finite number, or an absurd one.
    """

    name: str
    path: Path
    train: Series
    val: Series
    sources: dict[str, Series]
    bits_per_byte: Series
    hellaswag: Series
    hellaswag_items: int | None
    measures: dict[str, Series]
    not_finite: list[int]
    recipe: dict[str, Any]

    @property
    def last_tokens(self) -> float:
        """Where its longest series ends."""
        return max(series.tokens[-1] for series in (self.train, self.val) if len(series))

    @property
    def last_step(self) -> int:
        """The step of its last loss."""
        return max(int(series.steps[-1]) for series in (self.train, self.val) if len(series))

    @property
    def is_finished(self) -> bool:
        """Whether it has made all steps of its recipe."""
        steps = whole(self.recipe, "steps")
        return steps is not None and self.last_step >= steps

    @property
    def compares_with_gpt2(self) -> bool:
        """Whether GPT-2's loss may stand beside this run's."""
        return loss_reference(self.recipe).applies

    @property
    def hellaswag_references(self) -> tuple[str, float, float] | None:
        """The size's name, GPT-2's and GPT-3's accuracy, where they were measured as this run's was."""
        return hellaswag_reference(self.recipe, self.hellaswag_items).size

    @property
    def hellaswag_errors(self) -> np.ndarray:
        """A standard error for each score; 0 where nobody noted how many items it is of."""
        items = self.hellaswag_items
        return np.array([standard_error(share, items) if items else 0.0 for share in self.hellaswag.values])


def read_curves(path: Path, name: str | None = None) -> Curves:
    """A run's records. Lines that a crash cut are passed over, and so are values that are no numbers.

    Args:
        name: what to call it; without one, as its folder is called.
    Raises:
        DataError: not a run. NothingRecordedError: it has recorded no loss yet. UnreadableError: a file can't be read.
    """
    run = Run(path)
    recipe, records = run.recipe(), run.metrics()
    scores = _series(records, "hellaswag_acc_token")
    items = [found for record in records if (found := whole(record, "hellaswag_items"))]
    curves = Curves(
        name=path.resolve().name if name is None else name,
        path=path,
        train=_series(records, "train_loss"),
        val=_series(records, "val_loss"),
        sources={key.removeprefix(OF_SOURCE): _series(records, key) for key in _keys_of_sources(records)},
        bits_per_byte=_series(records, "val_bits_per_byte"),
        hellaswag=scores[(scores.values >= 0) & (scores.values <= 1)],
        hellaswag_items=items[-1] if items else None,
        measures={key: _series(records, key) for key in MEASURES},
        not_finite=_not_finite(records),
        recipe=recipe,
    )
    if not len(curves.train) and not len(curves.val):
        raise NothingRecordedError(f"{run.metrics_path} has no losses yet; train the run first")
    return curves


def read_all(paths: Sequence[Path]) -> list[Curves]:
    """Several runs, under names that tell them apart. A folder that is given twice is read once."""
    unique = list({path.resolve(): path for path in paths}.values())
    return [read_curves(path, name) for path, name in zip(unique, telling_names(unique), strict=True)]


def telling_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, and before it as many more as it takes for the names to differ.

    >>> telling_names([Path("/a/x"), Path("/b/x"), Path("/b/y")])
    ['a/x', 'b/x', 'y']
    """
    parts = [path.resolve().parts[1:] or ("/",) for path in paths]

    def name(n: int, length: int) -> tuple[str, ...]:
        return parts[n][-length:]

    names = []
    for n in range(len(parts)):
        length = 1
        while length < len(parts[n]) and any(
            name(other, length) == name(n, length) for other in range(len(parts)) if other != n
        ):
            length += 1
        names.append("/".join(name(n, length)))
    return names


def _series(records: Sequence[dict[str, Any]], key: str) -> Series:
    """The records that have a number under a key; of a step that ran twice the later one."""
    latest: dict[int, tuple[int, float]] = {}
    for record in records:
        step, tokens, value = whole(record, "step"), whole(record, "tokens"), _value(record, key)
        if step is not None and tokens is not None and value is not None:
            latest[step] = (tokens, value)
    steps = np.array(list(latest), dtype=np.int64)
    table = np.array(list(latest.values()), dtype=np.float64).reshape(-1, 2)
    # Somebody's edited file may go back: a curve does not.
    before = np.concatenate([[-1.0], np.maximum.accumulate(table[:, 0])])[:-1]
    kept = table[:, 0] > before
    return Series(steps[kept], table[kept, 0], table[kept, 1])


def _keys_of_sources(records: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({key for record in records for key in record if key.startswith(OF_SOURCE)})


def _value(record: dict[str, Any], key: str) -> float | None:
    value = number(record, key)
    return None if value is None or abs(value) > MOST else value


def _not_finite(records: Sequence[dict[str, Any]]) -> list[int]:
    found = {
        step
        for record in records
        if (step := whole(record, "step")) is not None
        for key in ("train_loss", "val_loss")
        if isinstance(record.get(key), float) and _value(record, key) is None
    }
    return sorted(found)


def smoothed(values: np.ndarray) -> np.ndarray:
    """A centred running mean over `SMOOTHING_SHARE` of the points; at the ends over what there is.

    >>> smoothed(np.array([1.0, 2.0, 3.0])).tolist()
    [1.5, 2.0, 2.5]
    """
    half = max(1, round(len(values) * SMOOTHING_SHARE / 2))
    running = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (running[last] - running[first]) / (last - first)


def final_values(curves: Curves) -> str:
    """The numbers a reader came for, in a line."""
    parts = [f"after {token_count(curves.last_tokens)} tokens"]
    if len(curves.val):
        parts.append(f"validation loss {curves.val.values[-1]:.4f}")
    if len(curves.bits_per_byte):
        parts.append(f"{curves.bits_per_byte.values[-1]:.3f} bits per byte")
    if len(curves.train):
        parts.append(f"train loss {smoothed(curves.train.values)[-1]:.4f} (smoothed)")
    if len(curves.hellaswag):
        error = f" ± {curves.hellaswag_errors[-1]:.4f}" if curves.hellaswag_items else ""
        parts.append(f"HellaSwag {curves.hellaswag.values[-1]:.4f}{error} (chance: {HELLASWAG_CHANCE})")
    return "  ·  ".join(parts)


def range_of_tokens(drawn: Sequence[Curves]) -> str:
    """How far several runs have come."""
    last = [curves.last_tokens for curves in drawn]
    low, high = token_count(min(last)), token_count(max(last))
    return f"{low} tokens each" if low == high else f"{low} to {high} tokens"


def token_count(tokens: float, _position: object = None) -> str:
    """
    >>> token_count(0), token_count(1500), token_count(10_485_760), token_count(10e9)
    ('0', '1.5K', '10.5M', '10B')
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if tokens >= size:
            return f"{tokens / size:.1f}".removesuffix(".0") + unit
    return f"{tokens:g}"
