"""The curves of runs as one PNG: loss and HellaSwag against tokens, with other models' values where they apply.

Which values apply to a run is said in `myna.references`.

Runs whose tokenizers differ are labelled with their bits per byte instead of their loss.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from myna.evaluate.curves import Curves, final_values, range_of_tokens, smoothed, token_count
from myna.reference_curves import LLMC_LOSSES, LLMC_STEP_TOKENS, llmc_steps
from myna.references import HELLASWAG_CHANCE, curve_reference, loss_reference, tokenizer_of

# Okabe and Ito's palette: told apart with any colour vision, and in greys by its lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, MUTED, FAINT = "#1a1a1a", "#5f6670", "#e3e6ea"
OPENING_SHARE = 0.05  # the steep fall of the first tokens may leave the picture at the top


def picture(drawn: Sequence[Curves]) -> bytes:
    """One or more runs as a PNG."""
    with_hellaswag = any(len(curves.hellaswag) for curves in drawn)
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
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """The figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _headline(figure: Figure, left_panel: Axes, drawn: Sequence[Curves]) -> None:
    x = left_panel.get_position().x0
    title = words_of(drawn[0].name) if len(drawn) == 1 else f"{len(drawn)} runs"
    figure.text(x, 0.945, title, fontsize=17, fontweight="bold", color=INK, va="center")
    subtitle = final_values(drawn[0]) if len(drawn) == 1 else range_of_tokens(drawn)
    figure.text(x, 0.885, subtitle, fontsize=10.5, color=MUTED, va="center")


def _prepare(axes: Axes, title: str, notes: Sequence[str]) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, color=INK, pad=10)
    axes.set_title("  ·  ".join(notes), loc="right", fontsize=9, color=MUTED, pad=10)
    axes.set_xlabel("tokens trained on", fontsize=10, color=MUTED)
    token_axes(axes, ticks=6, label_size=9.5)


def token_axes(axes: Axes, *, ticks: int, label_size: float) -> None:
    """Tokens along the bottom, and lines across instead of a frame."""
    axes.xaxis.set_major_formatter(FuncFormatter(token_count))
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=label_size, labelcolor=MUTED)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b9bec5")


def _draw_loss(axes: Axes, drawn: Sequence[Curves]) -> None:
    alone = len(drawn) == 1
    labels = _validation_labels(drawn)
    for number, curves in enumerate(drawn):
        train_colour = COLOURS[number % len(COLOURS)]
        val_colour = COLOURS[1] if alone else train_colour
        train, val = curves.train, curves.val
        if len(train):
            axes.plot(train.tokens, train.values, color=train_colour, alpha=0.2, linewidth=0.8)
            label = "train (light: each step)" if alone else None if len(val) else labels[number]
            axes.plot(train.tokens, smoothed(train.values), color=train_colour, linewidth=1.8, label=label)
        if len(val):
            axes.plot(
                val.tokens,
                val.values,
                color=val_colour,
                linewidth=0.9,
                label=labels[number],
                zorder=3,
                **_dots(len(val)),
            )
        for source, (name, series) in enumerate(curves.sources.items() if alone else ()):
            colour = COLOURS[(2 + source) % len(COLOURS)]
            axes.plot(
                series.tokens,
                series.values,
                "--",
                color=colour,
                linewidth=0.9,
                label=f"validation, {words_of(name)}",
            )
    last = max(curves.last_tokens for curves in drawn)
    low, high = _loss_range(drawn, last)
    axes.set_xlim(0, last * 1.02 or 1)
    axes.set_ylim(low, high)
    start = max(float(one.values[0]) for c in drawn for one in (c.train, c.val) if len(one))
    notes = [] if alone else ["line: train, dots: validation"]
    notes += [f"begins at {start:.2f}"] if start > high else []
    _prepare(axes, "Loss, nats per token", notes)
    if all(curve_reference(curves.recipe).tolerance is not None for curves in drawn):
        tokens = LLMC_STEP_TOKENS * np.array(llmc_steps())
        style: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "linestyle": (0, (5, 3)), "zorder": 2}
        axes.plot(tokens, LLMC_LOSSES, label="llm.c's GPT-2 124M on FineWeb, validation", **style)
    if line := shared_line(drawn):
        _reference(axes, line.value, line.words, line.side)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="upper right")


@dataclass(frozen=True)
class Line:
    """GPT-2's loss beside curves: nats per token, its words, and the end of the line that no curve crosses."""

    value: float
    words: str
    side: Literal["left", "right"]


def shared_line(drawn: Sequence[Curves]) -> Line | None:
    """The line that stands beside all runs; None where there is none, or not the same for all."""
    found = {loss_reference(curves.recipe) for curves in drawn}
    first = next(iter(found))
    if first.value is None or len({(one.label, one.value) for one in found}) != 1:
        return None
    last = [one.values[-1] for curves in drawn for one in (curves.train, curves.val) if len(one)]
    side: Literal["left", "right"] = "right" if max(last) < first.value else "left"
    return Line(first.value, f"{first.label}, validation: {first.value:.4f}", side)


def words_of(name: str) -> str:
    """A name as it is in a picture: "$" would begin a formula, and a label that begins with "_" leaves legends."""
    return name.encode("utf-8", "replace").decode("utf-8").lstrip("_").replace("$", r"\$")


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
        label = words_of(curves.name)
        if in_bits and len(curves.bits_per_byte):
            label += f": {curves.bits_per_byte.values[-1]:.3f} bits per byte"
        elif len(curves.val):
            label += f": {curves.val.values[-1]:.4f}"
        labels.append(label)
    return labels


def _loss_range(drawn: Sequence[Curves], last: float) -> tuple[float, float]:
    """From a little under the lowest curve to a little over the highest that is left after the opening fall."""
    low, high, start = math.inf, -math.inf, -math.inf
    for curves in drawn:
        train = smoothed(curves.train.values) if len(curves.train) else curves.train.values
        dots = [curves.val, *(curves.sources.values() if len(drawn) == 1 else ())]
        for tokens, values in ((curves.train.tokens, train), *((one.tokens, one.values) for one in dots)):
            if len(values):
                low, start = min(low, float(values.min())), max(start, float(values.max()))
                later = values[tokens >= OPENING_SHARE * last]
                high = max(high, float((later if len(later) else values).max()))
    if line := shared_line(drawn):
        low, high = min(low, line.value), max(high, line.value)
    if start - high < 0.5 * (high - low):  # too little to be worth hiding
        high = start
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + 2 * margin


def _draw_hellaswag(axes: Axes, drawn: Sequence[Curves]) -> None:
    scored = [curves for curves in drawn if len(curves.hellaswag)]
    items = sorted({curves.hellaswag_items for curves in scored if curves.hellaswag_items})
    counted = [f"{' and '.join(f'{n:,}' for n in items)} items", "band: standard error"] if items else []
    _prepare(axes, "HellaSwag accuracy", ["mean per token", *counted])
    low, high = HELLASWAG_CHANCE, HELLASWAG_CHANCE
    for number, curves in enumerate(drawn):
        tokens, accuracy = curves.hellaswag.tokens, curves.hellaswag.values
        if len(tokens):
            colour = COLOURS[number % len(COLOURS)]
            error = curves.hellaswag_errors
            low, high = min(low, *(accuracy - error)), max(high, *(accuracy + error))
            axes.fill_between(
                tokens, accuracy - error, accuracy + error, color=colour, alpha=0.1, linewidth=0
            )
            axes.plot(
                tokens,
                accuracy,
                color=colour,
                linewidth=1.6,
                label=f"{words_of(curves.name)}: {accuracy[-1]:.4f}",
                **_dots(len(tokens)),
            )
    for size, gpt2, gpt3 in sorted({row for curves in scored if (row := curves.hellaswag_references)}):
        _reference(axes, gpt2, f"GPT-2 {size}: {gpt2}", "left")
        _reference(axes, gpt3, f"GPT-3 {size}: {gpt3}", "left")
        high = max(high, gpt2, gpt3)
    _reference(axes, HELLASWAG_CHANCE, f"chance: {HELLASWAG_CHANCE}", "right", above=False)
    span = high - low or HELLASWAG_CHANCE
    axes.set_ylim(low - 0.14 * span, high + 0.12 * span)
    axes.set_xlim(0, max(curves.hellaswag.tokens[-1] for curves in scored) * 1.02 or 1)
    if len(drawn) > 1:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 0.14))


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
