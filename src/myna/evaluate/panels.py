"""Many runs as one PNG: a small panel for each row of a comparison, with the first row in grey behind all others.

One panel for all shows up to six runs well (`picture.py`). Beyond that neither colours nor a legend can be told apart.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from myna.evaluate.curves import Curves, range_of_tokens, smoothed
from myna.evaluate.picture import COLOURS, INK, MUTED, png_of, token_axes, words_of

COLUMNS = 5
GREY = "#9aa1aa"
PANEL_INCHES = (2.6, 1.75)
OPENING_SHARE = 0.15  # of the tokens: how high the curves stand there is the top of the panels


def panels(rows: Mapping[str, Sequence[Curves]]) -> bytes:
    """A panel for each row: the training loss of its runs, smoothed, and a dot for each last validation loss.

    Args:
        rows: a row's name and its runs, such as one for each seed; the first row is what the others are compared with.
    """
    across = min(COLUMNS, len(rows))
    down = math.ceil(len(rows) / across)
    width, height = PANEL_INCHES[0] * across, PANEL_INCHES[1] * down + 1.05
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(
        left=0.5 / width,
        right=1 - 0.15 / width,
        top=1 - 1.0 / height,
        bottom=0.4 / height,
        hspace=0.36,
        wspace=0.1,
    )
    drawn = [curves for runs in rows.values() for curves in runs]
    low, high = _range(drawn)
    first = next(iter(rows))
    for number, (axes, name) in enumerate(zip(grid.flat, rows, strict=False)):
        if name != first:
            _curves(axes, rows[first], GREY)
        _curves(axes, rows[name], COLOURS[0])
        axes.set_title(words_of(name), loc="left", fontsize=8.5, color=INK, pad=4)
        axes.set_title(note(rows[name], rows[first]), loc="right", fontsize=8.5, color=MUTED, pad=4)
        axes.set_xlim(0, 1.03 * max(curves.last_tokens for curves in drawn))
        axes.set_ylim(low, high)
        token_axes(axes, ticks=3, label_size=7.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelbottom=number >= len(rows) - across)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    x = 0.5 / width
    figure.text(
        x, 1 - 0.3 / height, f"{len(drawn)} runs", fontsize=14, fontweight="bold", color=INK, va="center"
    )
    notes = f"{range_of_tokens(drawn)}  ·  training loss, nats per token; dot: last validation loss"
    notes += f"  ·  grey: {words_of(first)}"
    figure.text(x, 1 - 0.58 / height, notes, fontsize=8.5, color=MUTED, va="center")
    return png_of(figure)


def _curves(axes: Axes, runs: Sequence[Curves], colour: str) -> None:
    for curves in runs:
        train, val = curves.train, curves.val
        if len(train):
            axes.plot(train.tokens, smoothed(train.values), color=colour, linewidth=1.0)
        if len(val):
            axes.plot(val.tokens[-1], val.values[-1], "o", color=colour, markersize=3.5, zorder=3)


def last_loss(runs: Sequence[Curves]) -> float | None:
    """The mean of the runs' last validation losses; None where no run has any."""
    losses = [float(curves.val.values[-1]) for curves in runs if len(curves.val)]
    return sum(losses) / len(losses) if losses else None


def note(runs: Sequence[Curves], first: Sequence[Curves]) -> str:
    """The last loss of the first row; of another row, its difference to that."""
    mine, theirs = last_loss(runs), last_loss(first)
    if mine is None or runs is first:
        return "" if mine is None else f"{mine:.3f}"
    return "" if theirs is None else f"{mine - theirs:+.3f}"


def _range(drawn: Sequence[Curves]) -> tuple[float, float]:
    """From the lowest loss to the highest that is left after the opening fall."""
    last = max(curves.last_tokens for curves in drawn)
    values = [curves.val.values[-1:] for curves in drawn if len(curves.val)]
    for train in (curves.train for curves in drawn if len(curves.train)):
        later = smoothed(train.values)[train.tokens >= OPENING_SHARE * last]
        values.append(later if len(later) else train.values)
    found = np.concatenate(values)
    margin = 0.06 * float(found.max() - found.min()) or 0.05
    return float(found.min()) - margin, float(found.max()) + margin
