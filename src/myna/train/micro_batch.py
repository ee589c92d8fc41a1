"""How many sequences to compute at once, where the person leaves it to us."""

from collections.abc import Callable

import torch

from myna.errors import DeviceError, UsageError
from myna.train.ranks import Ranks
from myna.train.recipe import Recipe

# On a CPU, more tokens at once than this made steps slower, since activations fall out of the cache (docs/log.md).
CPU_TOKENS = 2048


def divisors(n: int) -> list[int]:
    """All divisors, the largest first.

    >>> divisors(12)
    [12, 6, 4, 3, 2, 1]
    """
    return [d for d in range(n, 0, -1) if n % d == 0]


def choose_micro_batch(recipe: Recipe, ranks: Ranks, try_out: Callable[[int], None]) -> int:
    """The micro-batch of a recipe: the one it names, or the largest that the device can hold.

    Args:
        try_out: runs a forward and backward pass of so many sequences, and forgets it.
    Raises:
        UsageError: the batch doesn't divide among the ranks. DeviceError: not even one sequence fits.
    """
    if recipe.micro_batch != "auto":
        return recipe.micro_batch
    if recipe.batch_samples % ranks.world_size:
        unit = ranks.world_size * recipe.sequence_length
        low = recipe.batch_tokens // unit * unit
        near = " and ".join(f"{n:,}" for n in (low, low + unit) if n)
        raise UsageError(
            f"a batch of {recipe.batch_samples} sequences does not divide among {ranks.world_size} ranks; "
            f"the nearest --batch-tokens that do are {near}"
        )
    candidates = divisors(recipe.batch_samples // ranks.world_size)
    if ranks.device.type != "cuda":
        fitting = (n for n in candidates if n * recipe.sequence_length <= CPU_TOKENS)
        return next(fitting, 1)
    for candidate in candidates:
        fits = torch.tensor([float(_fits(candidate, try_out))], device=ranks.device)
        if float(ranks.sum_(fits)) == ranks.world_size:
            return candidate
    raise DeviceError(
        f"not even one sequence of {recipe.sequence_length} tokens fits the memory of {ranks.device}; "
        "lower --sequence-length, or choose a smaller model"
    )


def _fits(candidate: int, try_out: Callable[[int], None]) -> bool:
    try:
        try_out(candidate)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True
