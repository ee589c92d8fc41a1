"""How many sequences to compute at once, where the person leaves it to us.

The fastest. Too few leave a device's cores with little to share. Too many fall out of a processor's cache, and on a GPU
they take memory without a gain. Where the best lies differs by machine, so it is measured. What was found is
remembered, so that the same run on the same machine takes the same next time, and adds up in the same order. What
the memory limited is not remembered: another time more may be free.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from myna.data.ramp import divisors
from myna.device import synchronize
from myna.errors import DeviceError, OutputError, UsageError
from myna.files import cache_folder, json_bytes, write_atomic
from myna.parsing import parse_json
from myna.train.machines.ranks import Ranks
from myna.train.memory import is_out_of_memory
from myna.train.recipe import Recipe

LEAST_TOKENS = 512  # with fewer at once, what a step costs besides its arithmetic weighs more
TRIAL_SECONDS, MOST_PASSES = 0.3, 30  # a candidate gets, where its passes are short
RULE = f"the fastest, by passes of each from {LEAST_TOKENS} tokens up"
GAIN = 0.02  # a larger micro-batch has to be faster by this to be preferred, for it takes more memory


@dataclass(frozen=True)
class MicroBatch:
    """The sequences to compute at once, and why so many."""

    sequences: int
    reason: str


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
    unit = recipe.ramp.unit
    if unit % ranks.world_size:
        raise UsageError(
            f"a batch of {unit} sequences does not divide among {ranks.world_size} ranks; give "
            f"{_dividing(recipe, ranks.world_size)}"
        )
    share = unit // ranks.world_size
    key = _key(recipe, ranks, setting)
    remembered = int(ranks.from_main(str(_recall(key))))
    # Others may have taken a GPU's memory since.
    if (
        remembered
        and share % remembered == 0
        and (ranks.device.type != "cuda" or _best_of(1, remembered, ranks, try_out) < math.inf)
    ):
        return MicroBatch(remembered, "the fastest here, as found before")
    least = min(share, math.ceil(LEAST_TOKENS / recipe.sequence_length))
    candidates = [n for n in reversed(divisors(share)) if n >= least]
    if len(candidates) > 1:
        say(
            f"measuring which micro-batch is the fastest, from {candidates[0]} sequences up; a --micro-batch "
            "of your own spares that"
        )
    chosen, by_speed = _fastest(candidates, ranks, try_out)
    if chosen is None:
        what = "one sequence" if candidates[0] == 1 else f"{candidates[0]} sequences"
        raise DeviceError(
            f"not even {what} of {recipe.sequence_length} tokens fits the memory of {ranks.device}; {advice}"
        )
    if ranks.is_main and by_speed:
        _remember(key, chosen.sequences)
    return chosen


def _fastest(
    candidates: Sequence[int], ranks: Ranks, try_out: Callable[[int], None]
) -> tuple[MicroBatch | None, bool]:
    """Goes up from the smallest until a larger one is no faster: so memory grows no further than it pays.

    Returns:
        the choice, None where not even the smallest fits; and whether it was by speed alone, not for want of memory.
    """
    if len(candidates) == 1 and ranks.device.type != "cuda":
        return MicroBatch(candidates[0], "the whole batch"), True
    best, best_rate = candidates[0], 0.0
    tried: list[int] = []
    seconds = 0.0
    for candidate in candidates:
        seconds = _seconds(candidate, ranks, try_out)
        if seconds == math.inf and not tried:
            return None, False
        tried.append(candidate)
        if candidate / seconds < best_rate * (1 + GAIN):
            break
        best, best_rate = candidate, candidate / seconds
    return MicroBatch(best, f"the fastest of {', '.join(map(str, tried))}"), seconds < math.inf


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
    """Seconds of the fastest pass, with several ranks on their average; infinitely many where memory runs out."""
    times = []
    try:
        for _ in range(passes):
            synchronize(ranks.device)
            began = time.perf_counter()
            try_out(candidate)
            synchronize(ranks.device)  # a GPU's work goes on after the call
            times.append(time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        times = [math.inf]
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()  # what it leaves to the allocator must not lie in the next one's way
    best = torch.tensor([min(times)], device=ranks.device)
    return float(ranks.sum_(best)) / ranks.world_size


def _key(recipe: Recipe, ranks: Ranks, setting: str) -> str:
    shape = (
        f"{recipe.network} {recipe.network_options}, {recipe.n_layer} layers, {recipe.n_head} heads, "
        f"{recipe.n_embd} wide, dropout {recipe.dropout:g}, {recipe.optimizer}"
    )
    batch = f"{recipe.ramp.unit} sequences of {recipe.sequence_length} over {ranks.world_size} ranks"
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
    """Micro-batches that a rank adds up in a step of the whole batch.

    Raises:
        UsageError: the batch doesn't divide; names the nearest that do.
    """
    assert isinstance(recipe.micro_batch, int), "settle auto before training"
    unit, at_once = recipe.ramp.unit, world_size * recipe.micro_batch
    if unit % at_once:
        share, rest = divmod(unit, world_size)
        smaller = min(recipe.micro_batch, share)
        while not rest and share % smaller:
            smaller -= 1
        same = "" if rest else f"--micro-batch {smaller}, or "
        raise UsageError(
            f"a batch of {unit} sequences does not divide among {world_size} ranks with micro-batches of "
            f"{recipe.micro_batch}; give {same}{_dividing(recipe, at_once)}"
        )
    return recipe.batch_samples // at_once


def _dividing(recipe: Recipe, at_once: int) -> str:
    """The flag that makes every step a multiple of so many sequences, with the values nearest to the recipe's."""
    if not recipe.batch_ramp_tokens:
        low = recipe.batch_samples // at_once * at_once
        near = [n * recipe.sequence_length for n in (low, low + at_once) if n]
        return f"--batch-tokens {' or '.join(f'{n:,}' for n in near)}"
    fitting = [n * recipe.sequence_length for n in divisors(recipe.batch_samples)[1:] if n % at_once == 0]
    if not fitting:
        return "--batch-ramp-tokens 0"
    return (
        f"--batch-ramp-start-tokens {min(fitting, key=lambda n: abs(n - recipe.batch_ramp_start_tokens)):,}"
    )
