"""What an accuracy is worth: how far chance moves it. No torch: reports need none."""

import math


def standard_error(accuracy: float, items: int) -> float:
    """How far an accuracy over so many items lies from the one over all that could be asked: one deviation.

    >>> round(standard_error(0.2945, 10_042), 4), round(standard_error(0.2945, 500), 4)
    (0.0045, 0.0204)
    """
    return math.sqrt(accuracy * (1 - accuracy) / items)
