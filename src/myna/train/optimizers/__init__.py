"""Optimizers: one file each, and the table that names them.

To add one: write its file with a dataclass of options and a function `build` (see adamw.py), and its line in
`OPTIMIZERS`. No file here imports torch before it builds, so that `myna train --help` can show all options.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.errors import unknown_name
from myna.settings import Options
from myna.train.optimizers import adam, adamw, muon, sgd

if TYPE_CHECKING:
    from myna.train.optimizers.optimizer import Optimizer


@dataclass(frozen=True)
class OptimizerKind:
    """A line of the table.

    Attributes:
        build: (network, peak learning rate, options) -> Optimizer.
        options: the dataclass of its own options, flags `--optimizer.OPTION`.
        rates: the lowest and the highest peak learning rate that is usual. A run with another one says so.
    """

    build: "Callable[[Any, float, Any], Optimizer]"
    options: type[Options] = Options
    rates: tuple[float, float] = (0.0, math.inf)


OPTIMIZERS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind(adamw.build, adamw.AdamWOptions, (1e-6, 6e-3)),
    "adam": OptimizerKind(adam.build, adam.AdamOptions, (1e-6, 6e-3)),
    "sgd": OptimizerKind(sgd.build, sgd.SGDOptions, (1e-3, 2.0)),
    "muon": OptimizerKind(muon.build, muon.MuonOptions, (1e-3, 0.1)),
}


def optimizer_kind(name: str) -> OptimizerKind:
    """The line of that name.

    Raises:
        UsageError: there is none; names those there are.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, list(OPTIMIZERS))
    return OPTIMIZERS[name]


def rate_note(name: str, rate: float) -> str | None:
    """A sentence on a learning rate that is unusual for that optimizer; None for a usual one.

    A recipe's learning rate is its optimizer's. With another `--optimizer` it is easily wrong by a factor of ten.

    >>> rate_note("adamw", 0.02)
    'the learning rate 0.02 is higher than is usual for adamw (1e-06 to 0.006); --learning-rate changes it'
    >>> rate_note("muon", 0.02)
    """
    low, high = optimizer_kind(name).rates
    if low <= rate <= high:
        return None
    compared = "higher" if rate > high else "lower"
    return (
        f"the learning rate {rate:g} is {compared} than is usual for {name} ({low:g} to {high:g}); --learning-rate "
        "changes it"
    )
