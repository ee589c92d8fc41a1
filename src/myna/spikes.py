"""When a training loss is a spike: the rule that training warns by, and that reports count by.

A step's loss is a spike when it lies more than LIMIT deviations, and at least LEAST_NATS, above the mean. Mean and
deviation run over the steps before with weights that decay by 1/e in WINDOW_STEPS; the first WINDOW_STEPS are not
judged. A spike enters the mean as if it lay at the limit, so one doesn't blind the rule, and a lasting rise is in
the end the new normal.
"""

import math

WINDOW_STEPS = 100
LIMIT = 6.0
LEAST_NATS = 0.1


class RunningLoss:
    """The mean and the variance of a loss, and the limit above which the next one is a spike."""

    def __init__(self) -> None:
        self.steps, self.mean, self.variance = 0, 0.0, 0.0

    def limit(self) -> float:
        """In nats; infinite before enough steps were seen."""
        if self.steps < WINDOW_STEPS:
            return math.inf
        return self.mean + max(LIMIT * math.sqrt(self.variance), LEAST_NATS)

    def take(self, loss: float) -> None:
        """Goes on to the next step."""
        loss = min(loss, self.limit())
        self.steps += 1
        weight = 1 / min(self.steps, WINDOW_STEPS)
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference * difference)
