"""The learning rate as a function of the step."""

import math


def learning_rate(
    step: int, *, peak: float, final_fraction: float, warmup_steps: int, decay_steps: int
) -> float:
    """Linear warmup to the peak, then half a cosine down to `final_fraction` of it, and that rate from then on.

    Args:
        step: the update about to be made, from 0. The first already has a rate above 0.
        warmup_steps: may exceed `decay_steps`; the rate then only grows until there, and stays.
        decay_steps: updates until the end of the cosine: the last of them has exactly peak * final_fraction.
    Source:
        GPT-3, arXiv:2005.14165, appendix B.

    >>> [round(learning_rate(s, peak=1.0, final_fraction=0.1, warmup_steps=2, decay_steps=5), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
    """
    if warmup_steps >= decay_steps:
        return peak * min(step + 1, decay_steps) / warmup_steps
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, decay_steps - 1 - warmup_steps)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
