"""The learning rate as a function of the step."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from myna.train.recipe import Recipe

Decay = Literal["cosine", "linear", "constant"]


def learning_rate(
    step: int,
    *,
    peak: float,
    final_fraction: float,
    warmup_steps: int,
    decay_steps: int,
    decay: Decay = "cosine",
    constant_fraction: float = 0.0,
) -> float:
    """Linear warmup to the peak, then down to `final_fraction` of it, and that rate from then on.

    Args:
        step: the update about to be made, from 0. The first already has a rate above 0.
        warmup_steps: if it is `decay_steps` or more, there is no decay: the rate grows for `decay_steps` updates and
            then stays. If `warmup_steps` is larger than `decay_steps`, it stays below the peak.
        decay_steps: updates until the end of the decay. The last of them has exactly peak * final_fraction. If only
            one update is left for the decay, that one has the peak, and the next has peak * final_fraction.
        decay: half a cosine, or a straight line, or none at all: the peak until the end.
        constant_fraction: the share of `decay_steps` before the rate begins to come down, warmup included.
    Source:
        GPT-3, arXiv:2005.14165, appendix B. The straight line after a constant rate: Haegele et al. 2024,
        arXiv:2405.18392.

    >>> [round(learning_rate(s, peak=1.0, final_fraction=0.1, warmup_steps=2, decay_steps=5), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
    >>> line = {"final_fraction": 0.0, "warmup_steps": 0, "decay": "linear", "constant_fraction": 0.4}
    >>> [round(learning_rate(s, peak=1.0, decay_steps=5, **line), 3) for s in range(6)]
    [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    >>> level = {"final_fraction": 0.0, "warmup_steps": 2, "decay": "constant"}
    >>> [learning_rate(s, peak=1.0, decay_steps=5, **level) for s in range(6)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if warmup_steps >= decay_steps:
        return peak * min(step + 1, decay_steps) / warmup_steps
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if decay == "constant":
        return peak
    begin = min(max(warmup_steps, int(constant_fraction * decay_steps)), decay_steps - 1)
    progress = min(1.0, max(0, step - begin) / max(1, decay_steps - 1 - begin))
    left = 1 - progress if decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (final_fraction + (1 - final_fraction) * left)


def rate_of(recipe: "Recipe") -> Callable[[int], float]:
    """A function: the number of finished steps -> the learning rate of the next step."""
    return functools.partial(
        learning_rate,
        peak=recipe.learning_rate,
        final_fraction=recipe.final_learning_rate_fraction,
        warmup_steps=recipe.warmup_steps,
        decay_steps=recipe.decay_steps or recipe.steps,
        decay=recipe.decay,
        constant_fraction=recipe.constant_fraction,
    )
