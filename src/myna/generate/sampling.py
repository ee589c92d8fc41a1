"""How a text is sampled: the rules, and the choice of the next id from the logits.

The steps apply in this order:

1. The repetition penalty lowers the logits of ids that the text holds already, prompt included. It divides positive
   logits, and multiplies negative ones.
2. The logits are divided by the temperature. Temperature 0 is greedy: it takes the most likely id, without the steps
   below.
3. The `top_k` most likely ids are kept, and their probabilities scaled to add up to 1.
4. Of these ids, the most likely are kept until their probabilities add up to `top_p`.
5. Ids less likely than `min_p` times the most likely id are dropped.
6. One of the ids that are left is drawn, in proportion to its probability.

Every text has its own stream of random numbers, a function of (seed, row) alone. So sampling never uses torch's
global generator, and training stays reproducible. Row 0 of five is the same text as row 0 alone. A text that has ended
changes nothing for the others.

Sources:
    top-p: Holtzman et al. 2019, arXiv:1904.09751. min-p: Nguyen et al. 2024, arXiv:2407.01082.
    repetition penalty: Keskar et al. 2019, arXiv:1909.05858, section 4.1; for negative logits, as in transformers.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from myna.errors import UsageError
from myna.settings import is_number, is_whole

MOST_LOGPROBS = 5
WHOLE_NUMBERS = ("max_tokens", "top_k", "seed", "logprobs")
NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a text is sampled: everything that a request may say about it.

    Attributes:
        max_tokens: at most this many new ids; 0 draws none.
        temperature: 0 is greedy, 1 is the model's own distribution; above 1, unlikely ids come more often.
        top_k: keep this many of the most likely ids; None keeps all.
        top_p: keep the most likely ids until their probabilities add up to this, in (0, 1]; None keeps all.
        min_p: keep ids at least this fraction as likely as the most likely one, in [0, 1]; None keeps all.
        repetition_penalty: a value over 1 makes the ids in the text so far less likely; 1 changes nothing.
        seed: the same seed gives the same ids; None draws one from the operating system.
        stop_ids: ids that end a text; they are no part of it.
        stop: texts that end it; they are no part of it.
        logprobs: N, from 0 to 5: with each id, give its log-probability and those of the N most likely ids. None gives
            no log-probabilities.
        prompt_logprobs: give the log-probabilities of the prompt's ids too; the prompt must fit the model's window.
        slide: a text that fills the model's window goes on from the window's last half. False: it ends there.
    Raises:
        UsageError: a value is not possible.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_ids: Collection[int] = frozenset()
    stop: Collection[str] = ()
    logprobs: int | None = None
    prompt_logprobs: bool = False
    slide: bool = True

    def __post_init__(self) -> None:
        for name in (*WHOLE_NUMBERS, *NUMBERS):
            value, whole = getattr(self, name), name in WHOLE_NUMBERS
            may_be_none = name not in ("max_tokens", "temperature", "repetition_penalty")
            if value is None and may_be_none:
                continue
            shown = name.replace("_", "-")
            if not (is_whole(value) if whole else is_number(value)):
                raise UsageError(f"{shown} is {value!r}; give a {'whole ' if whole else ''}number")
            if name in NUMBERS and not _fits_float(value):
                raise UsageError(f"{shown} is further from 0 than any float; give another number")
        if not isinstance(self.stop_ids, Collection) or not all(map(is_whole, self.stop_ids)):
            raise UsageError(f"stop ids are {self.stop_ids!r}; give a list of whole numbers")
        if isinstance(self.stop, str) or not all(isinstance(text, str) for text in self.stop):
            raise UsageError(f"stop is {self.stop!r}; give a list of texts")
        if not all(self.stop):
            raise UsageError("a stop text is empty; give at least one character, or leave it out")
        if self.max_tokens < 0:
            raise UsageError(f"max tokens is {self.max_tokens}; give 0 or more")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature is {self.temperature}; give 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top-k is {self.top_k}; give 1 or more, or leave it out to keep every id")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top-p is {self.top_p}; give more than 0 and at most 1, or leave it out")
        if self.min_p is not None and not 0.0 <= self.min_p <= 1.0:
            raise UsageError(f"min-p is {self.min_p}; give 0 to 1, or leave it out")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UsageError(
                f"repetition-penalty is {self.repetition_penalty}; give more than 0; 1 changes nothing"
            )
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}; give 0 or more")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise UsageError(f"logprobs is {self.logprobs}; give 0 to {MOST_LOGPROBS}, or leave it out")
        # Make floats: torch takes no whole number beyond 64 bits.
        for name in NUMBERS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))
        object.__setattr__(self, "stop_ids", frozenset(self.stop_ids))
        object.__setattr__(self, "stop", tuple(self.stop))


def _fits_float(value: Real) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


class Draw:
    """What sampling keeps for one text: its rules, its random numbers, and the ids that it holds.

    Args:
        row: the number of this text among those of one seed.
        ids: the prompt; only the repetition penalty uses it.

    >>> one, same, next_row = (Draw(Sampling(seed=7), row) for row in (0, 0, 1))
    >>> first = one.uniform()
    >>> first == same.uniform(), first == next_row.uniform()
    (True, False)
    """

    def __init__(self, sampling: Sampling, row: int = 0, ids: Iterable[int] = ()):
        self.sampling = sampling
        entropy = np.random.SeedSequence().entropy if sampling.seed is None else sampling.seed
        self._random = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(row,)))
        self._held: dict[int, None] | None = None if sampling.repetition_penalty == 1 else dict.fromkeys(ids)

    def uniform(self) -> float:
        """The next number of this text's stream, from 0 up to, not including, 1."""
        return self._random.random()

    def note(self, id: int) -> None:
        """Records that the text holds this id from now on."""
        if self._held is not None:
            self._held[id] = None

    def penalised(self, logits: Tensor) -> Tensor:
        """The logits (V,) after the repetition penalty."""
        if not self._held:
            return logits
        held = torch.tensor(list(self._held), device=logits.device)
        old = logits[held]
        penalty = self.sampling.repetition_penalty
        return logits.index_copy(0, held, torch.where(old > 0, old / penalty, old * penalty))


def choose(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Chooses the next id of each text by that text's rules. A greedy text uses no random number.

    Args:
        logits: (B, V) float, finite; every column is an id that may be chosen.
        draws: B of them.

    >>> logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    >>> choose(logits, [Draw(Sampling(temperature=0)), Draw(Sampling(top_k=1))])
    [1, 1]
    """
    if any(draw.sampling.repetition_penalty != 1 for draw in draws):
        logits = torch.stack([draw.penalised(row) for draw, row in zip(draws, logits, strict=True)])
    chosen = [0] * len(draws)
    # Rows with the same rules are computed together.
    alike: dict[tuple[float | None, ...], list[int]] = {}
    for row, draw in enumerate(draws):
        s = draw.sampling
        rules = (0,) if s.temperature == 0 else (s.temperature, s.top_k, s.top_p, s.min_p)
        alike.setdefault(rules, []).append(row)
    for rows in alike.values():
        some = logits if len(rows) == len(draws) else logits[rows]
        for row, id in zip(rows, _choose_alike(some, [draws[row] for row in rows]), strict=True):
            chosen[row] = id
    return chosen


def _choose_alike(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    sampling = draws[0].sampling
    if sampling.temperature == 0:
        return logits.argmax(dim=-1).tolist()
    probabilities, ids = kept_probabilities(logits, sampling)
    # Inverse transform sampling: take the first place where the running sum exceeds u * total. There is one, since
    # u < 1. It is never an id of probability 0. The sum is float64: in fp32, rounding over 50,000 small terms would
    # blur the last ones.
    running = probabilities.double().cumsum(dim=-1)
    uniform = torch.tensor([draw.uniform() for draw in draws], dtype=torch.float64, device=running.device)
    place = torch.searchsorted(running, uniform[:, None] * running[:, -1:], right=True)
    chosen = place if ids is None else ids.gather(-1, place)
    return chosen.squeeze(-1).tolist()


def kept_probabilities(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """The distribution that `choose` draws from, for a temperature over 0, without the repetition penalty.

    Shapes:
        logits   (B, V)
        returns  probabilities (B, K), 0 for what top-p and min-p drop; the others stay unchanged, so
                 their sum may be below 1;
                 ids (B, K) of the columns, most likely first, or None if column k is id k
    """
    # MPS has no float64.
    if logits.device.type == "mps":
        logits = logits.cpu()
    logits = logits.float()
    # Subtract the largest logit, then divide by the temperature. float64 can hold the smallest temperature; a tiny one
    # makes the other logits -inf. `where` keeps the largest at 0: a device may multiply by 1 / temperature = inf, and
    # 0 * inf is NaN.
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
        # The sum of the probabilities of all more likely ids.
        before = probabilities.double().cumsum(dim=-1) - probabilities
        probabilities = probabilities.where(before < sampling.top_p, 0.0)
    if sampling.min_p:
        least = sampling.min_p * probabilities.max(dim=-1, keepdim=True).values
        probabilities = probabilities.where(probabilities >= least, 0.0)
    return probabilities, ids


@dataclass(frozen=True)
class LogProbs:
    """The model's own log-probabilities at one place of the text, before the temperature and every filter.

    Attributes:
        chosen: the log-probability of the id that was chosen, in nats.
        likeliest: the most likely ids with their log-probabilities, most likely first; as many as were asked for.
    """

    chosen: float
    likeliest: tuple[tuple[int, float], ...]


def log_probabilities(logits: Tensor, id: int, likeliest: int) -> LogProbs:
    """The log-probability of an id and those of the most likely ids, from one row of logits (V,).

    >>> found = log_probabilities(torch.tensor([0.0, 0.0]), 1, 1)
    >>> round(found.chosen, 4), len(found.likeliest)
    (-0.6931, 1)
    """
    logs = logits.float().log_softmax(dim=-1)
    values, ids = logs.topk(min(likeliest, len(logs)))
    return LogProbs(float(logs[id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
