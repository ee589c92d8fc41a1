"""How many sequences to compute at once, where the person leaves it to us.

On a GPU the largest that fits: more at once keeps more of it busy. On a CPU the fastest: too many at once fall out of
the processor's cache, too few leave its cores with little to share, and where the best lies differs by machine. What
was found is remembered, so that the same run on the same machine takes the same next time, and adds up in the same
order.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from myna.errors import DeviceError, OutputError, UsageError
from myna.files import cache_folder, json_bytes, write_atomic
from myna.train.ranks import Ranks
from myna.train.recipe import Recipe

LEAST_TOKENS = 512  # with fewer at once, what a step costs besides its arithmetic weighs more
GAIN = 0.02  # a larger micro-batch has to be faster by this to be preferred, for it takes more memory


@dataclass(frozen=True)
class MicroBatch:
    """The sequences to compute at once, and why so many."""

    sequences: int
    reason: str


def divisors(n: int) -> list[int]:
    """All divisors, the largest first.

    >>> divisors(12)
    [12, 6, 4, 3, 2, 1]
    """
    return [d for d in range(n, 0, -1) if n % d == 0]


def choose_micro_batch(
    recipe: Recipe, ranks: Ranks, try_out: Callable[[int], None], setting: str = ""
) -> MicroBatch:
    """The micro-batch of a recipe: the one it names, or the best of those that divide the rank's share.

    Args:
        try_out: runs a forward and backward pass of so many sequences, and forgets it.
        setting: what else the choice hangs on, beside recipe and ranks: device, precision, what is recomputed.
    Raises:
        UsageError: the batch doesn't divide among the ranks. DeviceError: not even one sequence fits.
    """
    if recipe.micro_batch != "auto":
        return MicroBatch(recipe.micro_batch, "asked for")
    if recipe.batch_samples % ranks.world_size:
        unit = ranks.world_size * recipe.sequence_length
        low = recipe.batch_tokens // unit * unit
        near = " and ".join(f"{n:,}" for n in (low, low + unit) if n)
        raise UsageError(
            f"a batch of {recipe.batch_samples} sequences does not divide among {ranks.world_size} ranks; "
            f"the nearest --batch-tokens that do are {near}"
        )
    share = recipe.batch_samples // ranks.world_size
    key = _key(recipe, ranks, setting)
    remembered = int(ranks.from_main(str(_recall(key))))
    on_gpu = ranks.device.type == "cuda"
    if remembered and share % remembered == 0 and (not on_gpu or _fits_all(remembered, ranks, try_out)):
        kind = "the largest that fits" if on_gpu else "the fastest here"
        return MicroBatch(remembered, f"{kind}, as found before")
    if on_gpu:
        chosen = _largest(divisors(share), recipe, ranks, try_out)
    else:
        least = min(share, math.ceil(LEAST_TOKENS / recipe.sequence_length))
        chosen = _fastest([n for n in reversed(divisors(share)) if n >= least], ranks, try_out)
    if ranks.is_main:
        _remember(key, chosen.sequences)
    return chosen


def _largest(
    candidates: Sequence[int], recipe: Recipe, ranks: Ranks, try_out: Callable[[int], None]
) -> MicroBatch:
    """The first that fits on every rank."""
    for candidate in candidates:
        if _fits_all(candidate, ranks, try_out):
            return MicroBatch(candidate, "the largest that fits")
    raise DeviceError(
        f"not even one sequence of {recipe.sequence_length} tokens fits the memory of {ranks.device}; "
        "lower --sequence-length, or choose a smaller model"
    )


def _fits_all(candidate: int, ranks: Ranks, try_out: Callable[[int], None]) -> bool:
    fits = torch.tensor([float(_fits(candidate, try_out))], device=ranks.device)
    return float(ranks.sum_(fits)) == ranks.world_size


def _fits(candidate: int, try_out: Callable[[int], None]) -> bool:
    try:
        try_out(candidate)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _fastest(candidates: Sequence[int], ranks: Ranks, try_out: Callable[[int], None]) -> MicroBatch:
    """Goes up from the smallest until a larger one is no faster: so memory grows no further than it pays."""
    best, best_rate, tried = candidates[0], 0.0, []
    for candidate in candidates if len(candidates) > 1 else []:
        tried.append(candidate)
        rate = candidate / _seconds(candidate, ranks, try_out)
        if rate < best_rate * (1 + GAIN):
            break
        best, best_rate = candidate, rate
    return MicroBatch(best, f"the fastest of {', '.join(map(str, tried))}" if tried else "the whole batch")


def _seconds(candidate: int, ranks: Ranks, try_out: Callable[[int], None]) -> float:
    """Of a pass, the better of two after one that finds its memory; with several ranks, on their average."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        try_out(candidate)
        times.append(time.perf_counter() - began)
    best = torch.tensor([min(times[1:])], dtype=torch.float64)
    return float(ranks.sum_(best)) / ranks.world_size


def _key(recipe: Recipe, ranks: Ranks, setting: str) -> str:
    shape = (
        f"{recipe.n_layer} layers, {recipe.n_head} heads, {recipe.n_embd} wide, dropout {recipe.dropout:g}"
    )
    batch = f"{recipe.batch_samples} sequences of {recipe.sequence_length} over {ranks.world_size} ranks"
    return f"{shape}; {batch}; {setting}; torch {torch.__version__}"


def _recall(key: str) -> int:
    """What was found for that key; 0 for nothing."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads((cache_folder() / "micro_batch.json").read_bytes())
        found = known.get(key) if isinstance(known, dict) else None
        return found if isinstance(found, int) and found > 0 else 0
    return 0


def _remember(key: str, sequences: int) -> None:
    path = cache_folder() / "micro_batch.json"
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        loaded = json.loads(path.read_bytes())
        known = loaded if isinstance(loaded, dict) else {}
    with contextlib.suppress(OutputError):  # a cache that can't be written costs time, not correctness
        write_atomic(path, json_bytes(known | {key: sequences}))
