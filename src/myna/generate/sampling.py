"""How a text is drawn, and the next id from the logits.

The filters apply in this order: the logits are divided by the temperature. The `top_k` most likely ids are kept, and
their probabilities scaled to add up to 1. The most likely of them are kept until their probabilities add up to `top_p`.
One id is drawn from what is left, in proportion. Temperature 0 is greedy: the most likely id, without a draw.

Every row has its own stream of random numbers, a function of (seed, row) alone. So sampling never touches torch's
global generator (training stays reproducible), row 0 of five is what one row alone would be, and a row that has
stopped takes nothing from the others.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from myna.errors import ModelError, UsageError
from myna.settings import is_number, is_whole


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a text is drawn: all that a request may say about it.

    Attributes:
        max_tokens: new ids at most; 0 draws none.
        temperature: 0 is greedy, 1 is the model's own distribution; more is bolder.
        top_k: keep this many of the most likely ids; None keeps all.
        top_p: keep the most likely ids until their probabilities add up to this, in (0, 1]; None keeps all.
        seed: the same seed gives the same ids; None draws one from the operating system.
        stop_ids: ids that end a row; they are no part of it.
    Raises:
        UsageError: a value that cannot be.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_ids: Collection[int] = frozenset()

    def __post_init__(self) -> None:
        for name in ("max_tokens", "top_k", "seed", "temperature", "top_p"):
            value = getattr(self, name)
            whole = name in ("max_tokens", "top_k", "seed")
            may_be_none = name in ("top_k", "seed", "top_p")
            if not (value is None and may_be_none) and not (is_whole(value) if whole else is_number(value)):
                raise UsageError(
                    f"{name.replace('_', '-')} is {value!r}; give a {'whole ' if whole else ''}number"
                )
        if not isinstance(self.stop_ids, Collection) or not all(map(is_whole, self.stop_ids)):
            raise UsageError(f"stop ids are {self.stop_ids!r}; give a list of whole numbers")
        if self.max_tokens < 0:
            raise UsageError(f"max tokens is {self.max_tokens}; give 0 or more")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top-k is {self.top_k}; give 1 or more, or leave it out to keep every id")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top-p is {self.top_p}; give more than 0 and at most 1, or leave it out")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}; give 0 or more")
        object.__setattr__(self, "stop_ids", frozenset(self.stop_ids))


class RowDraws:
    """One stream of uniform numbers a row, each a function of (seed, row). The rows are numbered from `first_row` on.

    >>> two, one = RowDraws(7, 2), RowDraws(7, 1)
    >>> bool(two.next()[0] == one.next()[0])
    True
    """

    def __init__(self, seed: int | None, rows: int, first_row: int = 0):
        entropy = np.random.SeedSequence().entropy if seed is None else seed
        self._rows = [
            np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(r,)))
            for r in range(first_row, first_row + rows)
        ]

    def next(self) -> Tensor:
        """The next number of each row: (B,) float64 on the CPU, from 0 up to, not including, 1."""
        return torch.tensor([row.random() for row in self._rows], dtype=torch.float64)


def choose(logits: Tensor, sampling: Sampling, draws: RowDraws) -> Tensor:
    """The next id of each row.

    Shapes:
        logits   (B, V)  float; every column is an id that may be chosen
        returns  (B,)    int64, on the device of the logits
    Raises:
        ModelError: the logits hold a NaN or an infinity.

    >>> logits = torch.tensor([[0.0, 3.0, 1.0]])
    >>> choose(logits, Sampling(temperature=0), RowDraws(0, 1))
    tensor([1])
    >>> choose(logits, Sampling(top_k=1), RowDraws(0, 1))
    tensor([1])
    """
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            "the model's output is not finite (a NaN or an infinity); its weights are damaged or diverged"
        )
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, ids = kept_probabilities(logits, sampling)
    # Inverse transform: the first place where the running sum exceeds u * total. An id of probability 0 is never
    # that place, and since u < 1 there always is one. float64, so that 50,000 small terms don't blur the last of them.
    running = probabilities.double().cumsum(dim=-1)
    target = draws.next().to(running.device)[:, None] * running[:, -1:]
    place = torch.searchsorted(running, target, right=True)
    chosen = place if ids is None else ids.gather(-1, place)
    return chosen.squeeze(-1).to(logits.device)


def kept_probabilities(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """The distribution that `choose` draws from.

    Shapes:
        logits   (B, V)
        returns  probabilities (B, K), 0 for what top-p drops, not renormalised after top-p; ids (B, K) of the columns,
                 most likely first, or None where column = id
    """
    if logits.device.type == "mps":  # which has no float64
        logits = logits.cpu()
    logits = logits.float()
    # The largest is made 0 before dividing, in float64, where the smallest temperature is not 0 yet: a tiny one gives
    # -inf for the others. The best stay 0 whatever they are divided by: a device may multiply by 1 / temperature = inf.
    gaps = (logits - logits.max(dim=-1, keepdim=True).values).double()
    scaled = (gaps / sampling.temperature).where(gaps < 0, 0.0).float()
    vocab_size = logits.shape[-1]
    ids: Tensor | None = None
    if sampling.top_k is not None and sampling.top_k < vocab_size:
        scaled, ids = scaled.topk(sampling.top_k, dim=-1)
    elif sampling.top_p is not None and sampling.top_p < 1.0:
        scaled, ids = scaled.sort(dim=-1, descending=True, stable=True)
    probabilities = scaled.softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1.0:
        before = probabilities.double().cumsum(dim=-1) - probabilities  # what the likelier ids hold already
        probabilities = probabilities.where(before < sampling.top_p, 0.0)
    return probabilities, ids
