"""How many samples each step of a run takes: always as many, or ever more at first, as GPT-3 trained."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from myna.errors import UsageError


def divisors(n: int) -> list[int]:
    """All divisors, the largest first.

    >>> divisors(12)
    [12, 6, 4, 3, 2, 1]
    """
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)}, reverse=True)


@dataclass(frozen=True)
class Ramp:
    """The batch of every step, as a function of the samples consumed so far: so a run's state stays one integer.

    The batch grows along a line, rounded down to a multiple of `start`. Ranks and micro-batches that divide `start` so
    divide every step, and the batches are the same for all of them.

    Args:
        start: samples of the first step.
        full: samples of a step once `over` samples are consumed.
        over: samples during which the batch grows; 0 for no ramp.
    Raises:
        UsageError: `start` does not divide `full`.
    Source:
        GPT-3, arXiv:2005.14165, appendix B: from 32k tokens to the full batch over the first 4 to 12 billion tokens.

    >>> ramp = Ramp(start=32, full=512, over=1000)
    >>> [ramp.at(consumed) for consumed in (0, 500, 1000)]
    [32, 256, 512]
    """

    start: int
    full: int
    over: int = 0

    def __post_init__(self) -> None:
        if self.start < 1 or self.full % self.start or self.over < 0:
            raise UsageError(
                f"no batch grows from {self.start} to {self.full} samples over {self.over}: the first must divide the "
                "last"
            )

    @property
    def unit(self) -> int:
        """The samples of which every step is a multiple."""
        return self.start if self.over else self.full

    def at(self, consumed: int) -> int:
        """The samples of the step that comes after so many samples."""
        if consumed >= self.over:
            return self.full
        grown = self.start + (self.full - self.start) * consumed // self.over
        return grown - grown % self.start

    def stages(self, consumed: int = 0) -> Iterator[tuple[int, int]]:
        """The growing batches from a sample on, each with its number of steps, until the batch is full.

        >>> list(Ramp(start=2, full=6, over=12).stages())
        [(2, 3), (4, 2)]
        """
        while (samples := self.at(consumed)) < self.full:
            # The fewest samples after which a line from `start` to `full` reaches the next multiple.
            grown = -(-samples * self.over // (self.full - self.start))
            steps = -(-(grown - consumed) // samples)
            yield samples, steps
            consumed += samples * steps

    def after(self, steps: int, consumed: int = 0) -> int:
        """The samples consumed after so many more steps.

        >>> Ramp(start=2, full=6, over=12).after(5)
        14
        """
        for samples, some in self.stages(consumed):
            some = min(some, steps)
            consumed, steps = consumed + samples * some, steps - some
            if not steps:
                break
        return consumed + steps * self.full

    def steps_to(self, samples: int) -> int:
        """The fewest steps, from the beginning, that take so many samples.

        >>> Ramp(start=2, full=6, over=12).steps_to(13)
        5
        """
        steps = 0
        for size, some in self.stages():
            some = min(some, -(-samples // size))
            steps, samples = steps + some, samples - size * some
            if samples <= 0:
                return steps
        return steps - (-samples // self.full)
