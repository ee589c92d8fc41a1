"""The ladder as a picture: a bar a rung, as long as it is fast. A rung alone is compared with no other."""

import io
import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from myna.bench.ladder import OURS
from myna.bench.table import headlines, remarks

LECTURE, OUR = "#0072B2", "#D55E00"  # of Okabe and Ito's palette: told apart with any colour vision
INK, MUTED, FAINT = "#1a1a1a", "#5f6670", "#b9bec5"
BAR_HEIGHT = 0.62  # of a row
# Of a rung; of the title and a line of text below it; of the axis.
ROW_INCHES, TITLE_INCHES, LINE_INCHES, AXIS_INCHES = 0.62, 0.6, 0.2, 0.75
LIMIT_SHARE = 0.25  # the matrix limit is drawn where the fastest rung reaches this much of it
LETTERS = 95  # of a reason that fit beside the names


def picture(ladder: dict[str, Any]) -> bytes:
    """The result of `measure_ladder` as a PNG."""
    records = ladder["rungs"]
    alone = sum("skipped" not in record for record in records) == 1
    lines = [*headlines(ladder), *(remarks(ladder) if alone else [])]
    above = TITLE_INCHES + LINE_INCHES * len(lines)
    height = above + AXIS_INCHES + ROW_INCHES * len(records)
    figure = Figure(figsize=(11, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.2, right=0.97, top=1 - above / height, bottom=0.6 / height)
    axes = figure.subplots()
    title = {"fontsize": 16, "fontweight": "bold", "color": INK, "va": "center"}
    what = "Tokens a second" if alone else "Tokens a second, rung by rung"
    figure.text(0.015, 1 - 0.32 / height, what, title)
    for number, line in enumerate(lines):
        y = 1 - (0.62 + LINE_INCHES * number) / height
        figure.text(0.015, y, _plain(line), fontsize=9, color=MUTED, va="center")
    fastest = max(record["tokens_per_second"] for record in records if "skipped" not in record)
    limit = _limit_rate(records)
    with_limit = fastest >= LIMIT_SHARE * limit
    right = max(1.38 * fastest, 1.03 * limit if with_limit else 0.0)  # room for the figures
    for row, record in enumerate(records):
        _draw_rung(axes, row, record, 0.008 * right, alone)
    if with_limit:
        axes.axvline(limit, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
        at = (limit, -0.62)
        _beside(axes, "matrix limit", at, -4, fontsize=9, color=MUTED, ha="right")
    _frame(axes, [record["title"] for record in records], right, alone)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _limit_rate(records: list[dict[str, Any]]) -> float:
    """Tokens a second if all a step did were matrix products at the measured limit."""
    measured = next(record for record in records if "skipped" not in record)
    return measured["tokens_per_second"] / measured["share_of_limit"]


def _draw_rung(axes: Axes, row: int, record: dict[str, Any], gap: float, alone: bool) -> None:
    if "skipped" in record:
        reason = textwrap.shorten(f"skipped: {record['skipped']}", LETTERS, placeholder=" …")
        axes.text(gap, row, _plain(reason), fontsize=9, color=MUTED, va="center", style="italic")
        return
    rate = record["tokens_per_second"]
    colour = OUR if record["name"] == OURS else LECTURE
    axes.barh(row, rate, height=BAR_HEIGHT, color=colour, zorder=2)
    bold = _beside(axes, f"{rate:,.0f}", (rate, row), 6, fontsize=11, fontweight="bold", color=INK)
    rest = f"{record['peak_memory_bytes'] / 1e9:.2f} GB"
    if not alone:
        rest = f"{record['ratio']:.2f}×   {rest}"
    _beside(axes, rest, (1, 0.5), 8, xycoords=bold, fontsize=9.5, color=MUTED)


def _beside(axes: Axes, text: str, at: tuple[float, float], points: float, **style: Any) -> Annotation:
    """Text so many points to the right of a place, over whatever is there."""
    label = axes.annotate(
        text, at, xytext=(points, 0), textcoords="offset points", va="center", zorder=4, **style
    )
    label.set_path_effects([withStroke(linewidth=4, foreground="white")])
    return label


def _frame(axes: Axes, titles: list[str], right: float, alone: bool) -> None:
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.4, -0.8)
    axes.set_xlim(0, right)
    beside = (
        "the bar: peak memory"
        if alone
        else "each bar: how many times as fast as the top one, and peak memory"
    )
    axes.set_xlabel(f"tokens a second  ·  beside {beside}", fontsize=9, color=MUTED)
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    axes.tick_params(axis="y", labelsize=11, labelcolor=INK)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def _plain(text: str) -> str:
    """Text in which "$" begins no formula."""
    return text.replace("$", r"\$")
