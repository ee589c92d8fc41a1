"""What follows when the loss of a step spikes: a line, or the end of the run. Its state is part of the checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from myna.errors import CheckpointError, DivergedError
from myna.spikes import RunningLoss

OnSpike = Literal["warn", "stop"]


class SpikeRule(RunningLoss):
    """Judges each step's loss; the same on every rank, as the loss is.

    Args:
        on_spike: what follows: a line, or the end of the run before the update.
        say: told of a spike.
    """

    def __init__(self, on_spike: OnSpike, say: Callable[[str], None]):
        super().__init__()
        self.on_spike, self.say = on_spike, say

    def see(self, step: int, loss: float) -> None:
        """The loss of the update about to be made, the `step`-th.

        Raises:
            DivergedError: it is a spike, and the run is to stop for one.
        """
        limit = self.limit()
        if loss > limit:
            what = f"step {step}: the loss {loss:.4f} spikes above {limit:.4f} (mean {self.mean:.4f})"
            if self.on_spike == "stop":
                raise DivergedError(
                    f"{what}; nothing was updated",
                    "Lower --learning-rate with --override, or go on with --on-spike warn",
                )
            self.say(what)
        self.take(loss)

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
