"""A run of so many minutes: the steps that fit.

What a step, an evaluation and a checkpoint take is measured in `pace.py`. Here is the arithmetic, which needs no torch.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from myna.train.laid_out import EVALUATIONS, LaidOut
from myna.train.recipe import Recipe

BESIDE_SHARE = 0.3  # of the time, for evaluations and checkpoints
LEAST_STEPS = 3


@dataclass(frozen=True)
class Recurring:
    """Something that a run does beside its steps.

    Attributes:
        name: for people.
        seconds: what it takes, each time.
        times: how often a run of that recipe does it.
    """

    name: str
    seconds: float
    times: Callable[[Recipe], int]


def evaluations_of(every: int, steps: int) -> int:
    """How often a run makes an evaluation: before step 1, every so many steps, and after the last.

    >>> evaluations_of(4, steps=8), evaluations_of(4, steps=9), evaluations_of(0, steps=9)
    (3, 4, 0)
    """
    return 1 + -(-steps // every) if every else 0


def checkpoints_of(every: int, steps: int) -> int:
    """How often a run saves a checkpoint: every so many steps, and the last.

    >>> checkpoints_of(4, steps=8), checkpoints_of(4, steps=9), checkpoints_of(0, steps=9)
    (2, 3, 1)
    """
    return -(-steps // every) if every else 1


@dataclass(frozen=True)
class Costs:
    """What the parts of a run take.

    Attributes:
        step_seconds: of a step.
        measured_steps: how many steps that is the mean of; 0 where a step was too long to be made whole.
    """

    step_seconds: float
    measured_steps: int
    recurring: tuple[Recurring, ...] = ()

    def beside(self, recipe: Recipe) -> float:
        """The seconds that a run spends on what recurs."""
        return sum(one.seconds * one.times(recipe) for one in self.recurring)

    def whole(self, recipe: Recipe) -> float:
        """The seconds of a run from step 1 to its end."""
        return recipe.steps * self.step_seconds + self.beside(recipe)


def lay_out(minutes: float, recipe: Recipe, given: Collection[str], costs: Costs, seconds: float) -> LaidOut:
    """The most steps that fit, with all that recurs; 0 steps where not even one does.

    Where evaluations and checkpoints would take more than their share of the time, the evaluations come less often,
    down to one before step 1 and one after the last step.

    Args:
        given: the fields that the person gave a number.
        seconds: that are left of the minutes.
    """
    rarest = max(recipe.steps // max(1, getattr(recipe, name)) for name in EVALUATIONS) + 1
    for apart in range(1, rarest + 1):

        def laid(steps: int, apart: int = apart) -> Recipe:
            return LaidOut(minutes, recipe.steps, steps, apart).over(recipe, given)

        steps = steps_within(seconds, costs, laid)
        if steps and costs.beside(laid(steps)) <= BESIDE_SHARE * seconds:
            break
    return LaidOut(minutes, recipe.steps, steps, apart)


def steps_within(seconds: float, costs: Costs, laid: Callable[[int], Recipe]) -> int:
    """How many steps fit; 0 where not even one does.

    Args:
        laid: the recipe laid over so many steps.
    """
    fitting, too_many = 0, max(0, int(seconds / costs.step_seconds)) + 1
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if costs.whole(laid(middle)) <= seconds:
            fitting = middle
        else:
            too_many = middle
    return fitting


def rounded_up(minutes: float) -> float:
    """To two digits, for a person to type.

    >>> rounded_up(0.01234), rounded_up(2.31), rounded_up(151)
    (0.013, 2.4, 160.0)
    """
    unit = 10.0 ** (math.floor(math.log10(minutes)) - 1)
    return float(f"{math.ceil(minutes / unit) * unit:.6g}")
