"""Prompt ids -> new ids, many rows at once, with a key/value cache.

The window. A model sees at most `block_size` positions. Of a longer prompt the last `block_size` ids are kept. When a
row has filled its window, it goes on from the window's last half (`block_size // 2` ids, at least one), so that one
long forward pass buys half a window of short ones. Each row follows the rule by itself, so its greedy ids don't depend
on the other rows, nor on the cache.

Rows of different lengths. The prompts go through the network in one pass, padded on the right, where causal attention
never looks. Then each row goes on at its own position: the cache knows their lengths.
"""

import contextlib
import operator
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from myna.device import autocast
from myna.errors import ModelError
from myna.generate.sampling import RowDraws, Sampling, choose
from myna.model.cache import KVCache
from myna.model.ids import check_ids
from myna.model.network import Network, evaluation_mode
from myna.settings import is_whole

Ids = Tensor | Sequence[Sequence[int]] | Sequence[int]


def generate(
    model: Network,
    ids: Ids,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
) -> list[list[int]]:
    """Continues each row of `ids`.

    Args:
        model, ids: see `stream`.
        max_tokens, temperature, top_k, top_p, seed, stop_ids: see `Sampling`.
    Returns:
        for each row the new ids alone, at most `max_tokens`, without the stop id that ended it
    Raises:
        ModelError, UsageError: see `stream`.

    >>> from myna import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=8, vocab_size=20))
    >>> [len(row) for row in generate(model, [[1, 2, 3], [4]], max_tokens=10, seed=0)]  # past the window's end
    [10, 10]
    """
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_ids=stop_ids,
    )
    prompts = check_rows(ids, checked_network(model).config.vocab_size)
    rows: list[list[int]] = [[] for _ in prompts]
    for step in stream(model, prompts, sampling):
        for row, new in zip(rows, step, strict=True):
            if new is not None:
                row.append(new)
    return rows


def stream(
    model: Network,
    ids: Ids,
    sampling: Sampling,
    *,
    first_row: int = 0,
    vocab_size: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    use_cache: bool = True,
) -> Iterator[list[int | None]]:
    """Yields, step by step, one new id for each row, or None for a row that has met a stop id.

    Args:
        model: the network itself, not its compiled or DDP wrapper (they share its weights). It is put in evaluation
            mode for each step and put back before the step is handed out.
        ids: (B, T) int64, or rows of any lengths, one id or more each; or one row, as a list of ids.
        first_row: the number of the first row: rows 4 to 7 of eight are the same drawn apart from the others.
        vocab_size: ids from this one on are never chosen; for a model with more ids than its tokenizer. None: all are.
        autocast_dtype: compute in this precision (bfloat16, float16) where autocast allows; None computes as the
            weights are.
        use_cache: False computes the whole window again for each id: slow, and the reference the cache is held to.
    Raises:
        ModelError: no ids, an id outside the model's vocabulary, or (after the first step has begun) an output that is
            not finite.
    """
    own = checked_network(model).config.vocab_size
    predictor = _Predictor(
        model, check_rows(ids, own), min(vocab_size or own, own), autocast_dtype, use_cache
    )
    return _steps(predictor, sampling, RowDraws(sampling.seed, len(predictor.windows), first_row))


def check_rows(ids: Ids, vocab_size: int) -> list[list[int]]:
    """Prompt rows as lists, at least one row, each of at least one id, every id in the vocabulary.

    Raises:
        ModelError: what is wrong with them.
    """
    if isinstance(ids, Tensor):
        if ids.dim() != 2:
            raise ModelError(f"prompt ids have shape {tuple(ids.shape)}; give (rows, length)")
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ModelError(f"prompt ids are {ids.dtype}; give integers")
        ids = ids.tolist()
    try:
        given = list(ids)
        if given and all(map(is_whole, given)):
            given = [given]  # one row
        rows = [[operator.index(id) for id in row] for row in given]
    except TypeError as error:
        raise ModelError(
            f"prompt ids are no rows of integers ({error}); give them as in [[1, 2, 3]], or one row as in [1, 2, 3]"
        ) from error
    if not rows or not all(rows):
        raise ModelError("a prompt is empty; give at least one token, such as the end-of-text id")
    for row in rows:
        check_ids(row, vocab_size, "prompt id")
    return rows


def checked_network(model: Network) -> Network:
    """
    Raises:
        ModelError: it is no network, such as the name of one.
    """
    if not hasattr(model, "hidden") or not hasattr(model, "config"):
        raise ModelError(
            f"the model is {type(model).__name__}; give a network, such as GPT.from_pretrained(DIR) returns"
        )
    return model


def _steps(predictor: "_Predictor", sampling: Sampling, draws: RowDraws) -> Iterator[list[int | None]]:
    running = [True] * len(predictor.windows)
    for step in range(sampling.max_tokens):
        new = choose(predictor.next_logits(), sampling, draws).tolist()
        running = [alive and id not in sampling.stop_ids for alive, id in zip(running, new, strict=True)]
        if not any(running):
            return
        yield [id if alive else None for alive, id in zip(running, new, strict=True)]
        if step + 1 < sampling.max_tokens:
            predictor.append(new)


class _Predictor:
    """The text of each row so far, and the logits after it.

    Attributes:
        windows: of each row, the ids that the network sees: at most `block_size`. The cache holds all of a window but
            the ids that came since the last forward pass.
    """

    def __init__(
        self,
        model: Network,
        rows: Sequence[list[int]],
        vocab_size: int,
        autocast_dtype: torch.dtype | None,
        use_cache: bool,
    ):
        self.model, self.vocab_size, self.dtype = model, vocab_size, autocast_dtype
        self.block_size = model.config.block_size
        self.windows = [row[-self.block_size :] for row in rows]
        self.cache = model.new_cache(len(rows), dtype=autocast_dtype) if use_cache else None

    def append(self, new: Sequence[int]) -> None:
        """One more id a row. A full window first gives up its older part."""
        for window, id in zip(self.windows, new, strict=True):
            window.append(id)
        full = [row for row, window in enumerate(self.windows) if len(window) > self.block_size]
        kept = max(1, self.block_size // 2)
        for row in full:
            self.windows[row] = self.windows[row][-kept:]
        # Every id that is left in such a row has moved to another position, so its keys and values are computed again.
        if self.cache is None or not full:
            return
        if len(full) == len(self.windows):
            self.cache.cut(0)
            return
        # Here all but the newest, which goes through the network together with those of the other rows.
        again = self.model.new_cache(len(full), kept, self.dtype)
        if kept > 1:
            with self._computing():
                self._hidden([self.windows[row][:-1] for row in full], again)
        self.cache.put(full, again)

    def next_logits(self) -> Tensor:
        """(B, V) float32: the head reads each row's last position alone, which saves most of a long prompt's cost."""
        lengths = [0] * len(self.windows) if self.cache is None else self.cache.lengths
        fresh = [window[length:] for window, length in zip(self.windows, lengths, strict=True)]
        with self._computing():
            hidden = self._hidden(fresh, self.cache)
            last = [len(ids) - 1 for ids in fresh]
            if min(last) == max(last):
                at_end = hidden[:, -1]
            else:
                at_end = hidden[torch.arange(len(last)), last]
                if self.cache is not None:
                    self.cache.cut([len(window) for window in self.windows])  # without the padding
            return self.model.logits(at_end)[:, : self.vocab_size].float()

    def _hidden(self, rows: Sequence[Sequence[int]], cache: KVCache | None) -> Tensor:
        """Rows of ids, padded on the right to the longest, through the network: (B, T, C)."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        return self.model.hidden(ids.to(self.model.device), cache)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.no_grad(), evaluation_mode(self.model), autocast(self.model.device, self.dtype):
            yield
