"""How many sequences to compute at once, where the person leaves it to us.

On a GPU the largest that fits: more at once keeps more of it busy. On a CPU the fastest: too many at once fall out of
the processor's cache, too few leave its cores with little to share, and where the best lies differs by machine. What
was found is remembered, so that the same run on the same machine takes the same next time, and adds up in the same
order.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from myna.errors import DeviceError, OutputError, UsageError
from myna.files import cache_folder, json_bytes, write_atomic
from myna.parsing import parse_json
from myna.train.machines.ranks import Ranks
from myna.train.memory import is_out_of_memory
from myna.train.recipe import Recipe

LEAST_TOKENS = 512  # with fewer at once, what a step costs besides its arithmetic weighs more
TRIAL_SECONDS, MOST_PASSES = 0.3, 30  # a candidate gets, where its passes are short
RULES = {
    "cuda": "the largest that fits",
    "cpu": f"the fastest, by passes of each from {LEAST_TOKENS} tokens up",
}
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
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)}, reverse=True)


def choose_micro_batch(
    recipe: Recipe,
    ranks: Ranks,
    try_out: Callable[[int], None],
    setting: str = "",
    say: Callable[[str], None] = lambda text: None,
    advice: str = "lower --sequence-length, or choose a smaller model",
) -> MicroBatch:
    """The micro-batch of a recipe: the one it names, or the best of those that divide the rank's share.

    Args:
        try_out: runs a forward and backward pass of so many sequences, and forgets it.
        setting: what else the choice hangs on, beside recipe and ranks: device, precision, vocabulary and the like.
        say: told before something is measured that takes a while.
        advice: what to do where not even the smallest fits.
    Raises:
        UsageError: the batch doesn't divide among the ranks. DeviceError: not even the smallest fits.
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
    if remembered and share % remembered == 0:
        if not on_gpu:
            return MicroBatch(remembered, "the fastest here, as found before")
        if _is_largest(remembered, share, ranks, try_out):
            return MicroBatch(remembered, "the largest that fits, as found before")
    if on_gpu:
        chosen = _largest(divisors(share), ranks, try_out)
    else:
        least = min(share, math.ceil(LEAST_TOKENS / recipe.sequence_length))
        candidates = [n for n in reversed(divisors(share)) if n >= least]
        if len(candidates) > 1:
            say(
                f"measuring which micro-batch is the fastest, from {candidates[0]} sequences up; a --micro-batch "
                "of your own spares that"
            )
        chosen = _fastest(candidates, ranks, try_out)
    if chosen is None:
        smallest = 1 if on_gpu else candidates[0]
        what = "one sequence" if smallest == 1 else f"{smallest} sequences"
        raise DeviceError(
            f"not even {what} of {recipe.sequence_length} tokens fits the memory of {ranks.device}; {advice}"
        )
    if ranks.is_main:
        _remember(key, chosen.sequences)
    return chosen


def _largest(candidates: Sequence[int], ranks: Ranks, try_out: Callable[[int], None]) -> MicroBatch | None:
    """The first that fits on every rank; None where none does."""
    for candidate in candidates:
        if _fits_all(candidate, ranks, try_out):
            return MicroBatch(candidate, RULES["cuda"])
    return None


def _is_largest(remembered: int, share: int, ranks: Ranks, try_out: Callable[[int], None]) -> bool:
    """Whether what was found before still fits, and the next larger still doesn't: others may come and go on a GPU."""
    larger = [n for n in divisors(share) if n > remembered]
    return _fits_all(remembered, ranks, try_out) and not (larger and _fits_all(larger[-1], ranks, try_out))


def _fits_all(candidate: int, ranks: Ranks, try_out: Callable[[int], None]) -> bool:
    fits = torch.tensor([float(_fits(candidate, try_out))], device=ranks.device)
    return float(ranks.sum_(fits)) == ranks.world_size


def _fits(candidate: int, try_out: Callable[[int], None]) -> bool:
    try:
        try_out(candidate)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _fastest(candidates: Sequence[int], ranks: Ranks, try_out: Callable[[int], None]) -> MicroBatch | None:
    """Goes up from the smallest until a larger one is no faster: so memory grows no further than it pays.

    None where not even the smallest fits.
    """
    best, best_rate = candidates[0], 0.0
    tried: list[int] = []
    for candidate in candidates if len(candidates) > 1 else []:
        seconds = _seconds(candidate, ranks, try_out)
        if seconds == math.inf and not tried:
            return None
        tried.append(candidate)
        if candidate / seconds < best_rate * (1 + GAIN):
            break
        best, best_rate = candidate, candidate / seconds
    return MicroBatch(best, f"the fastest of {', '.join(map(str, tried))}" if tried else "the whole batch")


def _seconds(candidate: int, ranks: Ranks, try_out: Callable[[int], None]) -> float:
    """Of a pass, the best after one that finds its memory; infinitely many where memory runs out on some rank."""
    if _best_of(1, candidate, ranks, try_out) == math.inf:
        return math.inf
    seconds = _best_of(2, candidate, ranks, try_out)
    # Where a pass is short, as many as tell it from what else the machine does. All ranks know the same seconds, and
    # so make the same number: a sharded model's passes are made together.
    more = min(MOST_PASSES, int(TRIAL_SECONDS / seconds))
    return min(seconds, _best_of(more, candidate, ranks, try_out)) if more > 2 else seconds


def _best_of(passes: int, candidate: int, ranks: Ranks, try_out: Callable[[int], None]) -> float:
    """Seconds of the fastest pass, with several ranks on their average."""
    times = []
    try:
        for _ in range(passes):
            began = time.perf_counter()
            try_out(candidate)
            times.append(time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        times = [math.inf]
    best = torch.tensor([min(times)], dtype=torch.float64)
    return float(ranks.sum_(best)) / ranks.world_size


def _key(recipe: Recipe, ranks: Ranks, setting: str) -> str:
    shape = (
        f"{recipe.network} {recipe.network_options}, {recipe.n_layer} layers, {recipe.n_head} heads, "
        f"{recipe.n_embd} wide, dropout {recipe.dropout:g}, {recipe.optimizer}"
    )
    batch = f"{recipe.batch_samples} sequences of {recipe.sequence_length} over {ranks.world_size} ranks"
    return f"{shape}; {batch}; {setting}; torch {torch.__version__}"


def _recall(key: str) -> int:
    """What was found for that key; 0 for nothing."""
    found = _known().get(key)
    return found if type(found) is int and found > 0 else 0  # True is an int


def _known() -> dict[str, Any]:
    """All that was found, by key; nothing where the file is not there or damaged."""
    with contextlib.suppress(OSError, ValueError):
        known = parse_json(_path().read_bytes())
        return known if isinstance(known, dict) else {}
    return {}


def _path() -> Path:
    return cache_folder() / "micro_batch.json"


def _remember(key: str, sequences: int) -> None:
    with contextlib.suppress(OutputError):  # a cache that can't be written costs time, not correctness
        write_atomic(_path(), json_bytes(_known() | {key: sequences}))


def accumulation(recipe: Recipe, world_size: int) -> int:
    """Micro-batches that a rank adds up in a step.

    Raises:
        UsageError: the batch doesn't divide; names the nearest that do.
    """
    assert isinstance(recipe.micro_batch, int), "settle auto before training"
    unit = world_size * recipe.micro_batch
    if recipe.batch_samples % unit:
        low = recipe.batch_samples // unit * unit
        near = " or ".join(f"{n * recipe.sequence_length:,}" for n in (low, low + unit) if n)
        share, rest = divmod(recipe.batch_samples, world_size)
        smaller = min(recipe.micro_batch, share)
        while not rest and share % smaller:
            smaller -= 1
        same = "" if rest else f"--micro-batch {smaller}, or "
        raise UsageError(
            f"a batch of {recipe.batch_samples} sequences does not divide among {world_size} ranks with micro-batches "
            f"of {recipe.micro_batch}; give {same}--batch-tokens {near}"
        )
    return recipe.batch_samples // unit
