"""Optimizers: one file each, and the table that names them.

To add one: write its file with a dataclass of options and a function `build` (see adamw.py), and its line in
`OPTIMIZERS`. No file here imports torch before it builds, so that `myna train --help` can show all options.
"""

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
    """

    build: "Callable[[Any, float, Any], Optimizer]"
    options: type[Options] = Options


OPTIMIZERS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind(adamw.build, adamw.AdamWOptions),
    "adam": OptimizerKind(adam.build, adam.AdamOptions),
    "sgd": OptimizerKind(sgd.build, sgd.SGDOptions),
    "muon": OptimizerKind(muon.build, muon.MuonOptions),
}


def optimizer_kind(name: str) -> OptimizerKind:
    """The line of that name.

    Raises:
        UsageError: there is none; names those there are.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, list(OPTIMIZERS))
    return OPTIMIZERS[name]
