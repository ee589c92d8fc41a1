"""What `myna train --data` names: folders of prepared datasets, and their weights in a mixture."""

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import tyro

from myna.errors import UsageError
from myna.paths import given_path, shown
from myna.store.address import is_url

# The type of the flag: it may be given several times.
DataFlag = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="DIR[:WEIGHT]")]


@dataclass(frozen=True)
class Named:
    """A dataset as it was named.

    Attributes:
        place: the path or URL of its folder.
        name: the folder's.
        weight: None where none was given.
    """

    place: str
    name: str
    weight: Fraction | None


def named_sources(given: Sequence[str]) -> list[Named]:
    """What the values of --data name, sorted by name.

    Raises:
        UsageError: a weight that cannot be, a weight for some alone, or two folders of one name.
    """
    named = sorted(map(_named, given), key=lambda one: one.name)
    for one, other in itertools.pairwise(named):
        if one.name == other.name:
            raise UsageError(
                f"--data names two folders that are called {one.name} ({one.place}, {other.place}); give each dataset "
                "once, and rename a folder if they are two"
            )
    without = [one.name for one in named if one.weight is None]
    if without and len(without) < len(named):
        raise UsageError(
            f"--data gives {', '.join(without)} no weight, and the others one; give each a weight, as {without[0]}:1, "
            "or none of them"
        )
    if not without and named and not any(one.weight for one in named):
        raise UsageError("the weights of --data sum to 0; give at least one dataset a weight above 0")
    return named


def _named(given: str) -> Named:
    """
    >>> _named("data/web:0.7").weight, _named("data/web").weight
    (Fraction(7, 10), None)
    """
    before, colon, last = given.rpartition(":")
    weight = _number(last) if colon else None
    folder = given if weight is None else before
    if not folder:
        raise UsageError(f"--data {given} names no folder; give FOLDER:WEIGHT")
    place = folder.rstrip("/") if is_url(folder) else str(given_path(folder))
    if weight is not None and not (math.isfinite(weight) and weight >= 0):
        raise UsageError(f"--data {shown(given)}: the weight is {last}; give a number, 0 or more")
    # As its name is written: a link's own, not that of the folder it leads to.
    name = os.path.basename(place if is_url(place) else os.path.abspath(place))
    return Named(place, name, None if weight is None else Fraction(repr(weight)))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
