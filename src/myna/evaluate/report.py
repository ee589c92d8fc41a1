"""A run's curves as one picture: loss and HellaSwag against tokens, with GPT-2's and GPT-3's values where they apply.

Which of OpenAI's values apply to a run is said in `myna.references`.

Runs whose tokenizers differ are labelled with their bits per byte instead of their loss.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from myna.errors import DataError
from myna.evaluate.accuracy import standard_error
from myna.files import write_atomic
from myna.references import (
    GPT2_FINEWEB_EDU_LOSS,
    HELLASWAG_CHANCE,
    hellaswag_reference,
    loss_reference,
    tokenizer_of,
)
from myna.run import Run

# Okabe and Ito's palette: told apart with any colour vision, and in greys by its lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, MUTED, FAINT = "#1a1a1a", "#5f6670", "#e3e6ea"
SMOOTHING_SHARE = 0.02  # the smoothed curve is a running mean over this share of the steps
OPENING_SHARE = 0.05  # the steep fall of the first tokens may leave the picture at the top


@dataclass(frozen=True)
class Curves:
    """What a run has recorded. Each series is (tokens (n,), values (n,))."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]
    bits_per_byte: tuple[np.ndarray, np.ndarray]
    hellaswag: tuple[np.ndarray, np.ndarray]  # mean per token
    hellaswag_items: int | None
    recipe: dict[str, Any]

    @property
    def last_tokens(self) -> float:
        """Where its longest series ends."""
        return max(tokens[-1] for tokens, _ in (self.train, self.val) if len(tokens))

    @property
    def compares_with_gpt2(self) -> bool:
        """Whether GPT-2's loss may stand beside this run's."""
        return loss_reference(self.recipe).applies

    @property
    def hellaswag_references(self) -> tuple[str, float, float] | None:
        """The size's name, GPT-2's and GPT-3's accuracy, where they were measured as this run's was."""
        return hellaswag_reference(self.recipe, self.hellaswag_items).size


def read_curves(path: Path) -> Curves:
    """A run's records, ready to draw.

    Raises:
        DataError: not a run, or one that has recorded nothing yet.
    """
    run = Run(path)
    recipe, records = run.recipe(), run.metrics()

    def series(key: str) -> tuple[np.ndarray, np.ndarray]:
        points = [
            (record["tokens"], record[key])
            for record in records
            if isinstance(record.get(key), (int, float))
            and math.isfinite(record[key])
            and isinstance(record.get("tokens"), int)
        ]
        tokens, values = zip(*points, strict=True) if points else ((), ())
        return np.array(tokens, dtype=np.float64), np.array(values, dtype=np.float64)

    items = [record["hellaswag_items"] for record in records if "hellaswag_items" in record]
    curves = Curves(
        # As it is in the picture: "$" would begin a formula, and a label that begins with "_" is left out of legends.
        name=path.resolve().name.lstrip("_").replace("$", r"\$"),
        train=series("train_loss"),
        val=series("val_loss"),
        bits_per_byte=series("val_bits_per_byte"),
        hellaswag=series("hellaswag_acc_token"),
        hellaswag_items=items[-1] if items else None,
        recipe=recipe,
    )
    if not len(curves.train[0]) and not len(curves.val[0]):
        raise DataError(f"{run.metrics_path} has no losses yet; train the run first")
    return curves


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


def report(runs: Sequence[Path], out: Path) -> Path:
    """Draws one or more runs into one PNG, written whole or not at all.

    Raises:
        DataError: a folder is no run, or has recorded nothing. OutputError: `out` can't be written.
    """
    if not runs:
        raise DataError("no run to draw; give the folder of at least one")
    drawn = [read_curves(path) for path in runs]
    with_hellaswag = any(len(curves.hellaswag[0]) for curves in drawn)
    figure = Figure(figsize=(13 if with_hellaswag else 9, 5.6), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if with_hellaswag else 1, squeeze=False)[0]
    figure.subplots_adjust(
        left=0.06 if with_hellaswag else 0.085, right=0.975, top=0.775, bottom=0.115, wspace=0.17
    )
    _draw_loss(panels[0], drawn)
    if with_hellaswag:
        _draw_hellaswag(panels[1], drawn)
    _headline(figure, panels[0], drawn)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(out, buffer.getvalue())
    return out


def _headline(figure: Figure, left_panel: Axes, drawn: Sequence[Curves]) -> None:
    x = left_panel.get_position().x0
    title = drawn[0].name if len(drawn) == 1 else f"{len(drawn)} runs"
    figure.text(x, 0.945, title, fontsize=17, fontweight="bold", color=INK, va="center")
    subtitle = final_values(drawn[0]) if len(drawn) == 1 else _range_of_tokens(drawn)
    figure.text(x, 0.885, subtitle, fontsize=10.5, color=MUTED, va="center")


def final_values(curves: Curves) -> str:
    """The numbers a reader came for, in a line."""
    parts = [f"after {token_count(curves.last_tokens)} tokens"]
    if len(curves.val[0]):
        parts.append(f"validation loss {curves.val[1][-1]:.4f}")
    if len(curves.bits_per_byte[0]):
        parts.append(f"{curves.bits_per_byte[1][-1]:.3f} bits per byte")
    if len(curves.train[0]):
        parts.append(f"train loss {smoothed(curves.train[1])[-1]:.4f} (smoothed)")
    if len(curves.hellaswag[0]):
        error = f" ± {_standard_errors(curves)[-1]:.4f}" if curves.hellaswag_items else ""
        parts.append(f"HellaSwag {curves.hellaswag[1][-1]:.4f}{error} (chance: {HELLASWAG_CHANCE})")
    return "  ·  ".join(parts)


def _range_of_tokens(drawn: Sequence[Curves]) -> str:
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


def _prepare(axes: Axes, title: str, notes: Sequence[str]) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, color=INK, pad=10)
    axes.set_title("  ·  ".join(notes), loc="right", fontsize=9, color=MUTED, pad=10)
    axes.set_xlabel("tokens trained on", fontsize=10, color=MUTED)
    axes.xaxis.set_major_formatter(FuncFormatter(token_count))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=MUTED)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b9bec5")


def _draw_loss(axes: Axes, drawn: Sequence[Curves]) -> None:
    alone = len(drawn) == 1
    labels = _validation_labels(drawn)
    for number, curves in enumerate(drawn):
        train_colour = COLOURS[number % len(COLOURS)]
        val_colour = COLOURS[1] if alone else train_colour
        tokens, loss = curves.train
        if len(tokens):
            axes.plot(tokens, loss, color=train_colour, alpha=0.2, linewidth=0.8)
            label = "train (light: each step)" if alone else None if len(curves.val[0]) else labels[number]
            axes.plot(tokens, smoothed(loss), color=train_colour, linewidth=1.8, label=label)
        tokens, loss = curves.val
        if len(tokens):
            axes.plot(
                tokens,
                loss,
                color=val_colour,
                linewidth=0.9,
                label=labels[number],
                zorder=3,
                **_dots(len(tokens)),
            )
    last = max(curves.last_tokens for curves in drawn)
    low, high = _loss_range(drawn, last)
    axes.set_xlim(0, last * 1.02)
    axes.set_ylim(low, high)
    start = max(float(values[0]) for c in drawn for _, values in (c.train, c.val) if len(values))
    notes = [] if alone else ["line: train, dots: validation"]
    notes += [f"begins at {start:.2f}"] if start > high else []
    _prepare(axes, "Loss, nats per token", notes)
    if all(curves.compares_with_gpt2 for curves in drawn):
        label = f"GPT-2 124M on FineWeb-Edu, validation: {GPT2_FINEWEB_EDU_LOSS}"
        _reference(axes, GPT2_FINEWEB_EDU_LOSS, label, "left")
    axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="upper right")


def _dots(points: int) -> dict[str, Any]:
    """Markers that don't hide the line they are on."""
    size = 4.4 if points <= 40 else 3.0
    return {"marker": "o", "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.5}


def _validation_labels(drawn: Sequence[Curves]) -> list[str]:
    if len(drawn) == 1:
        return ["validation"]
    in_bits = len({tokenizer_of(curves.recipe) for curves in drawn}) > 1
    labels = []
    for curves in drawn:
        label = curves.name
        if in_bits and len(curves.bits_per_byte[0]):
            label += f": {curves.bits_per_byte[1][-1]:.3f} bits per byte"
        elif len(curves.val[0]):
            label += f": {curves.val[1][-1]:.4f}"
        labels.append(label)
    return labels


def _loss_range(drawn: Sequence[Curves], last: float) -> tuple[float, float]:
    """From a little under the lowest curve to a little over the highest that is left after the opening fall."""
    low, high, start = math.inf, -math.inf, -math.inf
    for curves in drawn:
        tokens, loss = curves.train
        loss = smoothed(loss) if len(loss) else loss
        for t, values in ((tokens, loss), curves.val):
            if len(values):
                low, start = min(low, float(values.min())), max(start, float(values.max()))
                later = values[t >= OPENING_SHARE * last]
                high = max(high, float((later if len(later) else values).max()))
    if all(curves.compares_with_gpt2 for curves in drawn):
        low, high = min(low, GPT2_FINEWEB_EDU_LOSS), max(high, GPT2_FINEWEB_EDU_LOSS)
    if start - high < 0.5 * (high - low):  # too little to be worth hiding
        high = start
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + 2 * margin


def _draw_hellaswag(axes: Axes, drawn: Sequence[Curves]) -> None:
    scored = [curves for curves in drawn if len(curves.hellaswag[0])]
    items = sorted({curves.hellaswag_items for curves in scored if curves.hellaswag_items})
    counted = [f"{' and '.join(f'{n:,}' for n in items)} items", "band: standard error"] if items else []
    _prepare(axes, "HellaSwag accuracy", ["mean per token", *counted])
    low, high = HELLASWAG_CHANCE, HELLASWAG_CHANCE
    for number, curves in enumerate(drawn):
        tokens, accuracy = curves.hellaswag
        if len(tokens):
            colour = COLOURS[number % len(COLOURS)]
            error = _standard_errors(curves)
            low, high = min(low, *(accuracy - error)), max(high, *(accuracy + error))
            axes.fill_between(
                tokens, accuracy - error, accuracy + error, color=colour, alpha=0.1, linewidth=0
            )
            axes.plot(
                tokens,
                accuracy,
                color=colour,
                linewidth=1.6,
                label=f"{curves.name}: {accuracy[-1]:.4f}",
                **_dots(len(tokens)),
            )
    for size, gpt2, gpt3 in sorted({row for curves in scored if (row := curves.hellaswag_references)}):
        _reference(axes, gpt2, f"GPT-2 {size}: {gpt2}", "left")
        _reference(axes, gpt3, f"GPT-3 {size}: {gpt3}", "left")
        high = max(high, gpt2, gpt3)
    _reference(axes, HELLASWAG_CHANCE, f"chance: {HELLASWAG_CHANCE}", "right", above=False)
    span = high - low or HELLASWAG_CHANCE
    axes.set_ylim(low - 0.14 * span, high + 0.12 * span)
    axes.set_xlim(0, max(curves.hellaswag[0][-1] for curves in scored) * 1.02)
    if len(drawn) > 1:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 0.14))


def _standard_errors(curves: Curves) -> np.ndarray:
    """One for each score; 0 where nobody noted how many items it is of."""
    accuracy, items = curves.hellaswag[1], curves.hellaswag_items
    return np.array([standard_error(share, items) if items else 0.0 for share in accuracy])


def _reference(
    axes: Axes, value: float, text: str, side: Literal["left", "right"], above: bool = True
) -> None:
    """A dotted line across the panel, named at the end where curves are usually not."""
    axes.axhline(value, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
    label = axes.annotate(
        text,
        xy=(0.012 if side == "left" else 0.988, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4 if above else -4),
        textcoords="offset points",
        ha=side,
        va="bottom" if above else "top",
        fontsize=9,
        color=MUTED,
        zorder=4,
    )
    label.set_path_effects([withStroke(linewidth=3, foreground="white")])
