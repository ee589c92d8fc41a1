"""A loss that jumps: the rule by which it is noticed, whose state is part of the checkpoint.

A step's loss is a spike when it lies more than LIMIT deviations, and at least LEAST_NATS, above the mean. Mean and
deviation run over the steps before with weights that decay by 1/e in WINDOW_STEPS; the first WINDOW_STEPS are not
judged. A spike enters the mean as if it lay at the limit, so one doesn't blind the rule, and a lasting rise is in
the end the new normal.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from myna.errors import CheckpointError, DivergedError

WINDOW_STEPS = 100
LIMIT = 6.0
LEAST_NATS = 0.1

OnSpike = Literal["warn", "stop"]


class SpikeRule:
    """Judges each step's loss; the same on every rank, as the loss is.

    Args:
        on_spike: what follows: a line, or the end of the run before the update.
        say: told of a spike.
    """

    def __init__(self, on_spike: OnSpike, say: Callable[[str], None]):
        self.on_spike, self.say = on_spike, say
        self.steps, self.mean, self.variance = 0, 0.0, 0.0

    def see(self, step: int, loss: float) -> None:
        """The loss of the update about to be made, the `step`-th.

        Raises:
            DivergedError: it is a spike, and the run is to stop for one.
        """
        limit = self.mean + max(LIMIT * math.sqrt(self.variance), LEAST_NATS)
        if self.steps >= WINDOW_STEPS and loss > limit:
            what = f"step {step}: the loss {loss:.4f} spikes above {limit:.4f} (mean {self.mean:.4f})"
            if self.on_spike == "stop":
                raise DivergedError(
                    f"{what}; nothing was updated, and the last checkpoint stands. "
                    "Lower --learning-rate with --override, or go on with --on-spike warn"
                )
            self.say(what)
            loss = limit
        self.steps += 1
        weight = 1 / min(self.steps, WINDOW_STEPS)
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference * difference)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "mean": self.mean, "variance": self.variance}

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint; one without the rule starts it anew.

        Raises:
            CheckpointError: a value is no number.
        """
        if wrong := {k: v for k, v in state.items() if type(v) not in (int, float)}:
            raise CheckpointError(f"the checkpoint's spikes have {wrong}; use another checkpoint")
        self.steps, self.mean, self.variance = (state.get(k, 0) for k in ("steps", "mean", "variance"))
