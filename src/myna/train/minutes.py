"""A run of so many minutes: the steps that fit, and the schedule laid over them.

What a step, an evaluation and a checkpoint take is measured in `pace.py`. Here is the arithmetic, which needs no torch.
"""

import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from myna.errors import UsageError
from myna.settings import flag, is_number, is_whole
from myna.train.recipe import Recipe

# The fields that count steps. Each keeps its share of the steps; the evaluations are rarer where they take too long.
EVALUATIONS = ("eval_every", "sample_every", "hellaswag_every")
LAID_OVER = ("warmup_steps", "decay_steps", *EVALUATIONS, "checkpoint_every")
BESIDE_SHARE = 0.3  # of the time, for evaluations and checkpoints
MOST_MINUTES = 366 * 24 * 60  # a year
LEAST_STEPS = 3

# In recipe.json: what a run remembers of its `--minutes`.
KEY = "minutes"


def check_minutes(minutes: float) -> None:
    """
    Raises:
        UsageError: no run can take so long.
    """
    if not 0 < minutes <= MOST_MINUTES:
        raise UsageError(
            f"--minutes is {reprlib.repr(minutes)}; give a number of minutes over 0, at most {MOST_MINUTES:,} (a year)"
        )


def share_of(count: int, steps: int, of: int) -> int:
    """A number of steps of a schedule of `of` steps, in one of `steps`. Rounded up, so what was there stays.

    >>> share_of(60, steps=200, of=1200), share_of(1, steps=200, of=1200), share_of(0, steps=200, of=1200)
    (10, 1, 0)
    """
    return -(-count * steps // of)


@dataclass(frozen=True)
class LaidOut:
    """The steps that a run chose for its minutes. They stay, whatever the machine's speed is later.

    Attributes:
        recipe_steps: those of the recipe, of which the schedule's numbers are shares.
        steps: those that were chosen.
        apart: how many times as far apart as their share the evaluations are.
    """

    minutes: float
    recipe_steps: int
    steps: int
    apart: int = 1

    def over(self, recipe: Recipe, given: Collection[str] = ()) -> Recipe:
        """A recipe laid over the chosen steps.

        Args:
            given: fields that stay as they are, for the person gave their numbers.
        """
        counts: dict[str, Any] = {
            name: share_of(getattr(recipe, name), self.steps, self.recipe_steps)
            * (self.apart if name in EVALUATIONS else 1)
            for name in LAID_OVER
            if name not in given
        }
        return replace(recipe, steps=self.steps, **counts)

    def to_dict(self) -> dict[str, Any]:
        """As recipe.json has it, under `KEY`."""
        return dict(zip(_KEPT, (self.minutes, self.recipe_steps, self.steps, self.apart), strict=True))

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "LaidOut | None":
        """What a recipe.json says; None of a run that was begun without `--minutes`.

        Raises:
            UsageError: a value that cannot be.
        """
        if KEY not in stored:
            return None
        said: Any = stored[KEY] if isinstance(stored[KEY], dict) else {}
        minutes, *counts = map(said.get, _KEPT)
        if not is_number(minutes) or not all(is_whole(count) and count > 0 for count in counts):
            raise UsageError(f"{flag(KEY)} does not hold {', '.join(_KEPT)}")
        check_minutes(minutes)
        return cls(minutes, *counts)


_KEPT = ("minutes", "recipe_steps", "steps", "evaluations_apart")


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
