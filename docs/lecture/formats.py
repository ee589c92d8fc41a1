"""Number formats as a picture: their bits, and how far apart their numbers are.

python docs/lecture/formats.py formats.png
"""

import sys
from dataclasses import dataclass

import matplotlib
from matplotlib import pyplot

GREY = "#808080"  # legible on white and on black
PARTS = {"sign": "#d55e00", "exponent": "#56b4e9", "fraction": "#009e73", "whole number": "#cc79a7"}


@dataclass(frozen=True)
class Format:
    """A number format of so many bits, beside the sign's."""

    name: str
    exponent: int
    fraction: int
    colour: str

    def spacing(self) -> tuple[list[float], list[float]]:
        """The powers of two that it holds, and from each the distance to the next number, as a fraction of it."""
        if not self.exponent:  # int8: whole numbers
            powers, distances = range(self.fraction), [1.0] * self.fraction
        else:
            bias = 2 ** (self.exponent - 1) - 1
            # Below 2^(1 - bias) the distance no longer shrinks with the number.
            powers = range(1 - bias - self.fraction, bias + 1)
            distances = [2.0 ** (max(power, 1 - bias) - self.fraction) for power in powers]
        numbers = [2.0**power for power in powers]
        return numbers, [distance / number for distance, number in zip(distances, numbers, strict=True)]


FORMATS = (
    Format("fp32", 8, 23, "#0072b2"),
    Format("tf32", 8, 10, "#e69f00"),
    Format("bf16", 8, 7, "#d55e00"),
    Format("fp16", 5, 10, "#009e73"),
    Format("int8", 0, 7, "#cc79a7"),
)


def draw_bits(axis: pyplot.Axes) -> None:
    for row, each in enumerate(FORMATS):
        cells = ["sign"] + ["exponent"] * each.exponent
        cells += ["fraction" if each.exponent else "whole number"] * each.fraction
        for place, part in enumerate(cells):
            axis.barh(row, 0.86, left=place, height=0.62, color=PARTS[part])
        axis.text(len(cells) + 0.4, row, f"{len(cells)} bits", color=GREY, va="center")
    axis.set_yticks(range(len(FORMATS)), [each.name for each in FORMATS])
    axis.set_xlim(0, 38)
    axis.set_xticks([])
    axis.invert_yaxis()
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in PARTS.values()]
    axis.legend(handles, PARTS, loc="lower right", frameon=False, labelcolor=GREY)


def draw_spacing(axis: pyplot.Axes) -> None:
    for each in FORMATS:
        # fp16 has tf32's distances, so it is drawn wide and behind.
        wide = each.name == "fp16"
        axis.plot(*each.spacing(), color=each.colour, linewidth=7 if wide else 2, zorder=1 if wide else 2)
    for name, x, y in (
        ("bf16", 1e20, 0.6 * 2**-5), ("tf32", 1e20, 0.6 * 2**-8), ("fp32", 1e20, 0.6 * 2**-21),
        ("fp16", 1e0, 0.6 * 2**-10.6), ("int8", 1e7, 2**-3),
    ):  # fmt: skip
        colour = next(each.colour for each in FORMATS if each.name == name)
        axis.text(x, y, name, color=colour, ha="center", va="center", fontsize=12)
    axis.set(xscale="log", yscale="log")
    axis.set_xticks([10.0**power for power in range(-40, 41, 20)])
    axis.set_xlabel("the number", color=GREY)
    axis.set_ylabel("distance to the next, as a fraction of it", color=GREY)
    axis.grid(color=GREY, alpha=0.25)


def main(picture: str) -> None:
    matplotlib.use("agg")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), dpi=110)
    draw_bits(axes[0])
    draw_spacing(axes[1])
    for axis in axes:
        axis.tick_params(which="both", colors=GREY)
        for spine in axis.spines.values():
            spine.set_visible(axis is axes[1])
            spine.set_color(GREY)
    figure.tight_layout()
    figure.savefig(picture, transparent=True)
    pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
