"""A score is a finite number, or an error: a model with a NaN in its weights has no accuracy.

Sums carry a NaN or an infinity to the end, and every score goes through `finite`. By then all ranks of a distributed
run have the same sums, so they stop together.
"""

import math
from collections.abc import Mapping

from myna.errors import ModelError


def finite(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores themselves.

    Raises:
        ModelError: names the first that is a NaN or an infinity.

    >>> finite({"val_loss": 3.25})
    {'val_loss': 3.25}
    """
    for key, value in scores.items():
        if not math.isfinite(value):
            raise ModelError(
                f"{key} is {value}: the model's output is not finite, because its weights are damaged or diverged, or "
                "the precision is too narrow; try --precision fp32, or give an earlier checkpoint"
            )
    return dict(scores)
