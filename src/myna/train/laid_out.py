"""A run whose length was given as minutes or epochs: the steps that were chosen, and the schedule laid over them."""

import math
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

from myna.data.ramp import Ramp
from myna.errors import UsageError
from myna.settings import flag, is_number, is_whole
from myna.train.recipe import Recipe

# How a length is given in place of steps. It is the name of the flag, and of what recipe.json remembers.
By = Literal["minutes", "epochs"]
MOST: dict[By, float] = {"minutes": 366 * 24 * 60, "epochs": 1e6}
IN_WORDS: dict[By, str] = {
    "minutes": "a number of minutes over 0, at most 527,040 (a year)",
    "epochs": "a number over 0, at most a million",
}

# The fields that count steps. Each keeps its share of the steps; the evaluations are rarer where they take too long.
EVALUATIONS = ("eval_every", "sample_every", "hellaswag_every")
LAID_OVER = ("warmup_steps", "decay_steps", *EVALUATIONS, "checkpoint_every")


def check_length(by: By, amount: float) -> None:
    """
    Raises:
        UsageError: no run can be so long.
    """
    if not 0 < amount <= MOST[by]:
        raise UsageError(f"{flag(by)} is {reprlib.repr(amount)}; give {IN_WORDS[by]}")


def steps_of_epochs(epochs: float, windows: int, ramp: Ramp) -> int:
    """The fewest steps that go through all windows so many times.

    Args:
        windows: of an epoch.
        ramp: windows of each step.

    >>> steps_of_epochs(2, windows=100, ramp=Ramp(8, 8)), steps_of_epochs(0.5, windows=100, ramp=Ramp(8, 8))
    (25, 7)
    """
    return ramp.steps_to(math.ceil(Fraction(repr(epochs)) * windows))


def share_of(count: int, steps: int, of: int) -> int:
    """A number of steps of a schedule of `of` steps, in one of `steps`. Rounded up, so what was there stays.

    >>> share_of(60, steps=200, of=1200), share_of(1, steps=200, of=1200), share_of(0, steps=200, of=1200)
    (10, 1, 0)
    """
    return -(-count * steps // of)


@dataclass(frozen=True)
class LaidOut:
    """The steps that a run chose for its minutes or epochs. They stay, whatever the machine's speed is later.

    Attributes:
        amount: of minutes or epochs, as they were given.
        recipe_steps: those of the recipe, of which the schedule's numbers are shares.
        steps: those that were chosen.
        apart: how many times as far apart as their share the evaluations are.
        by: what the length was given in.
    """

    amount: float
    recipe_steps: int
    steps: int
    apart: int = 1
    by: By = "minutes"

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

    @property
    def as_given(self) -> str:
        """The flag with which the length was given, and its value."""
        return f"{flag(self.by)} {self.amount:g}"

    def to_dict(self) -> dict[str, Any]:
        """As recipe.json has it, under the name in `by`."""
        return dict(
            zip(_kept(self.by), (self.amount, self.recipe_steps, self.steps, self.apart), strict=True)
        )

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "LaidOut | None":
        """What a recipe.json says; None of a run whose length was given in steps.

        Raises:
            UsageError: a value that cannot be.
        """
        by: By
        for by in get_args(By):
            if by in stored:
                said: Any = stored[by] if isinstance(stored[by], dict) else {}
                amount, *counts = map(said.get, _kept(by))
                recipe_steps, steps, apart = counts
                if not is_number(amount) or not all(is_whole(count) and count > 0 for count in counts):
                    raise UsageError(f"{flag(by)} does not hold {', '.join(_kept(by))}")
                check_length(by, amount)
                return cls(amount, recipe_steps, steps, apart, by)
        return None


def _kept(by: By) -> tuple[str, ...]:
    return (by, "recipe_steps", "steps", "evaluations_apart")
