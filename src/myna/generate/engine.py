"""Prompt ids -> new ids, many rows at once, with a key/value cache.

The window. A model sees at most `block_size` positions. Of a longer prompt the last `block_size` ids are kept. When
generation has filled the window, it goes on from the window's last half (`block_size // 2` ids, at least one), so
that one long forward pass buys half a window of short ones. The rule is the same with and without the cache, and so
are greedy ids.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from myna.errors import ModelError, UsageError
from myna.generate.sampling import RowDraws, Sampling, choose
from myna.model.cache import KVCache
from myna.model.gpt2 import GPT


def generate(
    model: GPT,
    ids: Tensor | Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
    vocab_size: int | None = None,
    use_cache: bool = True,
    autocast_dtype: torch.dtype | None = None,
) -> list[list[int]]:
    """Continues each row of `ids`; see `stream` for the arguments.

    Returns:
        for each row the new ids alone, at most `max_tokens`, without the stop id that ended it

    >>> from myna.model.gpt2 import GPTConfig
    >>> model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=8, vocab_size=20))
    >>> [len(row) for row in generate(model, [[1, 2], [3, 4]], max_tokens=10, seed=0)]  # past the window's end
    [10, 10]
    """
    steps = stream(
        model,
        ids,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_ids=stop_ids,
        vocab_size=vocab_size,
        use_cache=use_cache,
        autocast_dtype=autocast_dtype,
    )
    rows: list[list[int]] = [[] for _ in range(len(ids))]
    for step in steps:
        for row, new in zip(rows, step, strict=True):
            if new is not None:
                row.append(new)
    return rows


def stream(
    model: GPT,
    ids: Tensor | Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    first_row: int = 0,
    stop_ids: Collection[int] = (),
    vocab_size: int | None = None,
    use_cache: bool = True,
    autocast_dtype: torch.dtype | None = None,
) -> Iterator[list[int | None]]:
    """Yields, step by step, one new id for each row, or None for a row that has met a stop id.

    Args:
        model: the network itself, not its compiled or DDP wrapper (they share its weights). It is put in evaluation
            mode for each step and put back before the step is handed out.
        ids: (B, T) int64, or rows of equal length; one id or more each.
        max_tokens: new ids a row at most; 0 yields nothing.
        temperature, top_k, top_p: see `sampling`.
        seed: the same seed gives the same ids; None draws one from the operating system.
        first_row: the number of the first row: rows 4 to 7 of eight are the same drawn apart from the others.
        stop_ids: ids that end a row; they are not yielded.
        vocab_size: ids from this one on are never chosen; for a model with more ids than its tokenizer. None: all are.
        use_cache: False computes the whole window again for each id: slow, and the reference the cache is held to.
        autocast_dtype: compute in this precision (bfloat16, float16) where autocast allows; None computes as the
            weights are.
    Raises:
        ModelError: no ids, rows of different lengths, an id outside the model's vocabulary, or an output that is
            not finite. UsageError: a sampling value that cannot be. All before the first step but the last.
    """
    allowed = model.config.vocab_size if vocab_size is None else min(vocab_size, model.config.vocab_size)
    rows = check_rows(ids, model.config.vocab_size)
    if max_tokens < 0:
        raise UsageError(f"max tokens is {max_tokens}; give 0 or more")
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    draws = RowDraws(seed, len(rows), first_row)
    predictor = _Predictor(model, rows, allowed, use_cache, autocast_dtype)
    return _steps(predictor, sampling, draws, max_tokens, frozenset(stop_ids))


def check_rows(ids: Tensor | Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """Prompt rows as a (B, T) int64 tensor on the CPU, B and T at least 1, every id in the vocabulary.

    Raises:
        ModelError: what is wrong with them.
    """
    if not isinstance(ids, Tensor):
        if len({len(row) for row in ids}) > 1:
            raise ModelError(
                "prompts of different lengths in one batch; give rows of equal length, or one at a time"
            )
        ids = torch.tensor([list(row) for row in ids], dtype=torch.int64)
    if ids.numel() == 0:
        raise ModelError("the prompt is empty; give at least one token, such as the end-of-text id")
    if ids.dim() != 2:
        raise ModelError(f"prompt ids have shape {tuple(ids.shape)}; give (rows, length)")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ModelError(f"prompt ids are {ids.dtype}; give integers")
    ids = ids.detach().to("cpu", torch.int64)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise ModelError(
            f"prompt id {wrong} is outside the vocabulary (0 to {vocab_size - 1}); use this model's own tokenizer"
        )
    return ids


def _steps(
    predictor: "_Predictor", sampling: Sampling, draws: RowDraws, max_tokens: int, stop_ids: frozenset[int]
) -> Iterator[list[int | None]]:
    running = [True] * predictor.rows
    for step in range(max_tokens):
        chosen = choose(predictor.next_logits(), sampling, draws)
        new = chosen.tolist()
        running = [alive and id not in stop_ids for alive, id in zip(running, new, strict=True)]
        if not any(running):
            return
        yield [id if alive else None for alive, id in zip(running, new, strict=True)]
        if step + 1 < max_tokens:
            predictor.append(chosen)


class _Predictor:
    """The text so far, and the logits after it."""

    def __init__(
        self, model: GPT, ids: Tensor, vocab_size: int, use_cache: bool, autocast_dtype: torch.dtype | None
    ):
        self.model = model
        self.vocab_size = vocab_size
        self.block_size = model.config.block_size
        self.autocast_dtype = autocast_dtype
        self.window = ids[:, -self.block_size :].to(model.device)  # (B, S)
        self.rows = len(ids)
        self.cache: KVCache | None = None
        if use_cache:
            dtype = autocast_dtype or model.wte.weight.dtype
            self.cache = KVCache(model.config, self.rows, model.device, dtype)

    def append(self, new: Tensor) -> None:
        """One more id a row, (B,); a full window first gives up its older part."""
        self.window = torch.cat([self.window, new[:, None]], dim=1)
        if self.window.shape[1] > self.block_size:
            self.window = self.window[:, -max(1, self.block_size // 2) :]
            if self.cache is not None:
                self.cache.reset()  # every id that is left has moved to another position

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """(B, V) float32: the head reads the last position alone, which for a long prompt saves most of its cost."""
        model, cache = self.model, self.cache
        fresh = self.window if cache is None else self.window[:, cache.length :]
        with evaluation_mode(model), autocast(model.device, self.autocast_dtype):
            last = model.hidden(fresh, cache)[:, -1]
            return model.head(last)[:, : self.vocab_size].float()


@contextlib.contextmanager
def evaluation_mode(model: GPT) -> Iterator[None]:
    """Dropout off inside, and the mode as it was afterwards."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Mixed precision in `dtype`; None computes as the weights are, whatever the caller's surroundings say."""
    if dtype is None:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)
