"""The ways to compute attention as a picture: time and memory over the length of the sequences."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from myna.bench.attention_table import headlines
from myna.bench.picture import FAINT, INK, LECTURE, MUTED, OUR

# Of Okabe and Ito's palette. The marks tell the lines apart without colour.
STYLES = {
    "four-operations": (LECTURE, "o"),
    "pytorch": ("#009E73", "s"),
    "ours": (OUR, "D"),
    "online-softmax": ("#8a6fb0", "^"),
}


def attention_picture(found: dict[str, Any]) -> bytes:
    """The result of `measure_attention` as a PNG."""
    figure = Figure(figsize=(11, 5), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.075, right=0.98, top=0.8, bottom=0.14, wspace=0.2)
    title = {"fontsize": 16, "fontweight": "bold", "color": INK, "va": "center"}
    figure.text(0.015, 0.945, "Attention, forward and backward", title)
    (about,) = headlines(found)
    figure.text(0.015, 0.89, about.replace("$", r"\$"), fontsize=9, color=MUTED, va="center")
    left, right = figure.subplots(1, 2)
    _draw(left, found, "ms", 1.0, "milliseconds")
    _draw(right, found, "memory_bytes", 1e6, "memory, MB")
    left.legend(frameon=False, fontsize=10, labelcolor=INK, loc="upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, found: dict[str, Any], key: str, unit: float, name: str) -> None:
    any_drawn = False  # a logarithm has no place for nothing
    for way in found["ways"]:
        colour, mark = STYLES[way["name"]]
        drawn = [record for record in way["lengths"] if record.get(key)]
        any_drawn = any_drawn or bool(drawn)
        values = [record[key] / unit for record in drawn]
        lengths = [record["length"] for record in drawn]
        bold = 2.6 if way["name"] == "ours" else 1.8
        axes.plot(
            lengths, values, color=colour, marker=mark, markersize=6, linewidth=bold, label=way["title"]
        )
    axes.set_xscale("log", base=2)
    if any_drawn:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.set_xticks(found["lengths"], [f"{length:,}" for length in found["lengths"]])
    axes.set_xlabel("T, tokens in a sequence", fontsize=9.5, color=MUTED)
    axes.set_title(name, loc="left", fontsize=11, color=INK)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
