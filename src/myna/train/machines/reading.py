"""Reading numbers from the device without waiting for what it does after them."""

from collections.abc import Callable

import torch
from torch import Tensor


def begin_reading(numbers: Tensor) -> Callable[[], list[float]]:
    """Asks for some numbers; the function that is returned waits for them, and for no work that is queued later.

    Shapes:
        numbers  (N,)

    >>> read = begin_reading(torch.tensor([1.0, 2.0]))
    >>> read()
    [1.0, 2.0]
    """
    if numbers.device.type != "cuda":
        return numbers.tolist
    copy = numbers.to(
        "cpu", non_blocking=True
    )  # into pinned memory, so the copy is one more piece of queued work
    passed = torch.cuda.Event()
    passed.record()

    def read() -> list[float]:
        passed.synchronize()
        return copy.tolist()

    return read
