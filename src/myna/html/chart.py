"""A chart of a page in one file: its data. `assets/chart.js` draws it, as on the server's page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from myna.html.escaping import escaped

COLOURS = 6

Format = Literal["loss", "short", "whole", "percent", "significant"]
Kind = Literal["line", "dots", "dashed", "faint"]
Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Curve:
    """Values of a chart.

    Attributes:
        label: what the values are.
        x: where they are, by the name of each axis that a reader may choose: {"tokens": …, "steps": …}. Ascending.
        y: the values. A place whose value is not finite is left out.
        colour: a number of the palette; None for the grey of what is compared with.
        group: the run that they are of, where a chart has several; the legend has a line for each.
        kind: line; dots (a few values); dashed (another project's curve); faint, twice: the lowest and the highest of
            the single values behind the line that `behind` names.
        errors: standard errors, drawn as a band.
    """

    label: str
    x: Mapping[str, Values]
    y: Values
    colour: int | None = 0
    group: str | None = None
    kind: Kind = "line"
    errors: Values | None = None
    behind: str | None = None

    def plain(self) -> dict[str, Any]:
        """For the page's script."""
        kept = [n for n, value in enumerate(self.y) if math.isfinite(value)]
        errors = None if self.errors is None else _numbers(self.errors, kept)
        found = {
            "label": self.label,
            "group": self.group,
            "behind": self.behind,
            "x": {name: _numbers(values, kept) for name, values in self.x.items()},
            "y": _numbers(self.y, kept),
            "colour": "--muted" if self.colour is None else f"--run-{self.colour % COLOURS}",
            "kind": self.kind,
            "errors": errors,
        }
        return {name: value for name, value in found.items() if value is not None}


def _numbers(values: Values, kept: Sequence[int]) -> list[float]:
    """Seven digits are more than a screen shows; whole numbers stay exact."""
    numbers = (float(values[n]) for n in kept)
    return [int(one) if one.is_integer() else float(f"{one:.7g}") for one in numbers]


@dataclass(frozen=True)
class Reference:
    """A dotted line across a chart, with its words above or below one end, where the curves are usually not."""

    value: float
    label: str
    side: Literal["left", "right"] = "left"
    above: bool = True


@dataclass(frozen=True)
class Chart:
    """Curves over each other. The values under the cursor stand in the legend, which also switches curves off.

    Attributes:
        format: how a value is written: "loss" (four digits), "short" (12.3K), "whole" (12,345), "percent" (of 1),
            "significant" (three digits).
        least_span: the least height of the scale; less would make much of nothing.
        from_zero: the scale begins at 0.
        logarithmic: a reader may choose a logarithmic scale.
        notes: sentences below it.
    """

    title: str
    curves: Sequence[Curve]
    references: Sequence[Reference] = ()
    format: Format = "significant"
    least_span: float = 0.0
    from_zero: bool = False
    logarithmic: bool = False
    notes: Sequence[str] = ()

    def html(self) -> str:
        """Its markup: the data, which the page's script draws."""
        data = {
            "title": self.title,
            "curves": [curve.plain() for curve in self.curves],
            "references": [vars(reference) for reference in self.references],
            "format": self.format,
            "leastSpan": self.least_span,
            "fromZero": self.from_zero,
            "logarithmic": self.logarithmic,
            "notes": list(self.notes),
        }
        # In ASCII, and no markup can begin or end inside: a script's text is not unescaped by browsers.
        text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
        return (
            f'<div class="chart"><script type="application/json">{text}</script>'
            f"<noscript><h3>{escaped(self.title)}</h3><p>This chart needs JavaScript.</p></noscript></div>"
        )
