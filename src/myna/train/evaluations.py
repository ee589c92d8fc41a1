"""What runs during training beside the steps: validation, HellaSwag, samples. A list, handed to the loop.

A stop signal ends an evaluation before its next batch. What was due and is not on the disk is made up for when the run
is taken up again.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from myna.errors import UsageError
from myna.model.network import Network
from myna.train.machines.ranks import Ranks
from myna.train.recipe import Recipe

Check = Callable[[], None]


class StopAskedError(Exception):
    """Some rank was asked to stop. Raised between two batches of an evaluation, on every rank."""


@dataclass(frozen=True)
class Evaluation:
    """Something done on every rank before step 1, at each multiple of `every_steps`, and after the last step.

    Attributes:
        name: for people; no two have the same.
        every_steps: 0 for never.
        function: (network, step, before_batch) -> values for the metrics, or None. It calls `before_batch` before each
            of its batches, equally often on every rank: there the ranks agree whether to stop.
        recorded: whether the result of a step is on the disk already; asked on the main rank.
        every: the recipe's field that `every_steps` is from, if it is from one.
        rounds: how often `function` calls `before_batch`, at most. By its first rounds `--minutes` knows what the
            evaluation takes. One of a single round is made whole for that, and its values are forgotten.
    """

    name: str
    every_steps: int
    function: Callable[[Network, int, Check], dict[str, float] | None]
    recorded: Callable[[int], bool]
    every: str = ""
    rounds: Callable[[Network], int] = lambda network: 1

    def laid_over(self, recipe: Recipe) -> Self:
        """The same evaluation, as often as a recipe says."""
        return replace(self, every_steps=getattr(recipe, self.every)) if self.every else self

    def due(self, step: int, steps: int) -> bool:
        """Whether it runs when `step` of `steps` updates are finished."""
        return self.every_steps > 0 and (step % self.every_steps == 0 or step == steps)


class Evaluations:
    """All evaluations of a run.

    Args:
        network: gives the network to evaluate: whole, and with averaged weights where the run keeps an average.
        steps: of the run.
    Raises:
        UsageError: two of one name.
    """

    def __init__(
        self,
        evaluations: Sequence[Evaluation],
        network: Callable[[], contextlib.AbstractContextManager[Network]],
        ranks: Ranks,
        steps: int,
    ):
        names = [evaluation.name for evaluation in evaluations]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"two evaluations are named {min(twice)!r}; rename or remove one")
        self.evaluations, self.network, self.ranks, self.steps = evaluations, network, ranks, steps

    def missing(self, step: int) -> list[Evaluation]:
        """Those due at a step whose result is not on the disk; the same list on every rank."""

        def names() -> str:
            return json.dumps([e.name for e in self._due(step) if not e.recorded(step)])

        missing = json.loads(self.ranks.main_does(names))
        return [evaluation for evaluation in self._due(step) if evaluation.name in missing]

    def run(
        self, step: int, stop_asked: Callable[[], bool], only: Sequence[Evaluation] | None = None
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """Runs what is due; yields each one's name and values.

        Args:
            stop_asked: whether this rank was told to stop.
            only: run these; None for all that are due.
        Raises:
            StopAskedError: some rank was; nothing more begins.
        """
        due = self._due(step) if only is None else only
        if not due:
            return

        def before_batch() -> None:
            asked = torch.tensor([float(stop_asked())], device=self.ranks.device)
            if float(self.ranks.sum_(asked)):
                raise StopAskedError

        with self.network() as network:
            for evaluation in due:
                before_batch()
                values = evaluation.function(network, step, before_batch)
                if values:
                    yield evaluation.name, values

    def _due(self, step: int) -> list[Evaluation]:
        return [evaluation for evaluation in self.evaluations if evaluation.due(step, self.steps)]
