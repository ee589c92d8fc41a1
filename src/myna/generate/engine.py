"""From prompt ids to new ids with a key/value cache: many texts at once, which may join or leave at any step.

    engine = Engine(model)
    (slot,) = engine.add([1, 2, 3], Sampling(max_tokens=20))
    while engine.busy:
        for new in engine.step(): ...          # new.slot, new.id, new.finish_reason

A step computes a piece of the waiting prompts, and one more id of every running text. So a long prompt delays the
others by one piece at a time. A text that joins or leaves costs the others nothing. A text depends on its own request
alone: it has its own positions, mask and random numbers. (In any engine, the other rows of a batch may change the last
bits of a floating-point sum. Then two ids whose likelihoods agree to six digits can change places.)

The window. A model sees at most `block_size` positions. The engine keeps the last `block_size` ids of a longer prompt,
or refuses the prompt if its ids are to be scored (`Sampling.prompt_logprobs`). A text that has filled its window ends,
or with `Sampling.slide` goes on from the window's last half (`block_size // 2` ids, at least one). The engine computes
that half anew, as if it were a prompt, and then draws ids until the window is full again.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from myna.device import autocast
from myna.errors import ModelError, first_line
from myna.generate.prefixes import Prefixes
from myna.generate.prompts import Ids, check_rows, checked_network
from myna.generate.sampling import Draw, LogProbs, Sampling, choose, log_probabilities
from myna.model.cache import KVCache
from myna.model.decoding import CompiledStep
from myna.model.evaluation import evaluation_mode
from myna.model.network import Network

FinishReason = Literal["stop", "length", "error"]

# Prompt positions that a step computes by default. A running text waits for at most this many.
PIECE = 256
# In ids. Copying the keys and values of fewer ids from another text is not worth it.
SHORTEST_REUSE = 8


@dataclass(eq=False)
class Slot:
    """One text: its place in the engine, and its progress.

    Attributes:
        window: the ids that the network sees, at most `block_size`; the network may not have read the newest yet. If
            the text ended when its window was full, `window` has one id more than `block_size`.
        n_new: ids drawn so far.
        draw: the text's sampling rules and random numbers.
        row: the text's row in the cache while it runs. None until its prompt is computed, and after its end.
        slid: whether its window was ever cut.
        finish_reason: "stop" for a stop id or by `remove`, "length" for max_tokens or a full window, "error"; None
            before its end.
        prompt_logprobs: one for each id of the prompt, if `Sampling.prompt_logprobs` asks for them; else empty. Entry 0
            is None, since no id comes before the prompt's first. The list is complete when the first new id comes, or
            with max_tokens 0 when the text ends. Texts of one prompt share the list.
    """

    draw: Draw
    window: list[int]
    prompt_logprobs: list[LogProbs | None]
    n_new: int = 0
    row: int | None = None
    finish_reason: FinishReason | None = None
    slid: bool = False


@dataclass(frozen=True)
class New:
    """What a step brought to one text.

    Attributes:
        id: the new id; None if a stop id or an error ended the text, or if `max_tokens` is 0.
        logprobs: those of the id, if `Sampling.logprobs` asks for them.
        finish_reason: None while the text goes on.
        error: the error that ended the text, if finish_reason is "error".
    """

    slot: Slot
    id: int | None
    logprobs: LogProbs | None = None
    finish_reason: FinishReason | None = None
    error: ModelError | None = None


@dataclass(eq=False)
class _Waiting:
    """A window whose keys and values are still to be computed, and the texts that go on from it.

    Attributes:
        scored: whether each of its ids gets its log-probability.
        cache: the keys and values computed so far, in one row.
    """

    ids: list[int]
    slots: list[Slot]
    scored: bool = False
    cache: KVCache | None = None


class Engine:
    """A model with the texts that it is writing.

    Args:
        model: the network itself, not its compiled or DDP wrapper (they share its weights). Each step puts it in
            evaluation mode, and then back in the mode that it had.
        vocab_size: ids from this one on are never chosen; for a model with more ids than its tokenizer. None: no limit.
        autocast_dtype: compute in this precision (bfloat16, float16) where autocast allows; None computes in
            the weights' dtype.
        piece: a step computes at most this many positions of the waiting prompts.
        prefix_bytes: how many bytes of earlier texts' keys and values to keep, for prompts with the same beginning.
    """

    def __init__(
        self,
        model: Network,
        *,
        vocab_size: int | None = None,
        autocast_dtype: torch.dtype | None = None,
        piece: int = PIECE,
        prefix_bytes: int = 0,
    ):
        own = checked_network(model).config.vocab_size
        self.model, self.vocab_size, self.dtype = model, min(vocab_size or own, own), autocast_dtype
        self.block_size, self.piece = model.config.block_size, piece
        self.prefixes = Prefixes(prefix_bytes)
        self._waiting: deque[_Waiting] = deque()
        # Each running text stands at the index of its row.
        self._running: list[Slot] = []
        self._compiled: CompiledStep | None = None
        self._cache_dtype = autocast_dtype
        self._cache = self._new_cache(0, 1)

    def compile_step(self) -> str | None:
        """Compiles the step of two or more running texts. This takes seconds; it pays if many texts run for long.

        A text that runs alone is still computed uncompiled, since that was no slower. If `store_weights` has stored the
        network's weights in fewer bytes, keys and values are kept in bf16 from now on (or in `autocast_dtype`). That
        halves the bytes to read, against fp32.

        Returns:
            None if the step is compiled. Else the reason why not; the engine then goes on without compiling.
        """
        assert not self.busy, "compile before the first text"
        dtype = self.dtype or (torch.bfloat16 if self.model.stored_on is not None else None)
        compiled = CompiledStep(self.model)
        try:
            with torch.no_grad(), evaluation_mode(self.model), autocast(self.model.device, self.dtype):
                compiled.warm_up(dtype)
        except Exception as error:
            # The compiler raises whatever its tools raise.
            return first_line(error)
        self._compiled, self._cache_dtype = compiled, dtype
        self._cache = self._new_cache(0, 1)
        self.prefixes.clear()
        return None

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""
        return bool(self._waiting or self._running)

    def add(
        self, ids: Sequence[int], sampling: Sampling, *, count: int = 1, first_row: int = 0
    ) -> list[Slot]:
        """Adds texts that go on from a prompt; they join in the next steps.

        Args:
            ids: the prompt, one id or more.
            count: how many texts. The prompt is computed once for all.
            first_row: the number of the first text, which selects its random numbers. So with one seed, texts 4 to 7
                are the same whether or not texts 0 to 3 are drawn too.
        Raises:
            ModelError: no ids, an id outside the model's vocabulary, or with `Sampling.prompt_logprobs` more ids than
                `block_size`.
        """
        (ids,) = check_rows([ids], self.model.config.vocab_size)
        if sampling.prompt_logprobs and len(ids) > self.block_size:
            raise ModelError(
                f"the prompt has {len(ids)} ids, and the model scores at most {self.block_size}; shorten the prompt, "
                "or leave prompt_logprobs out"
            )
        window = ids[-self.block_size :]
        scores: list[LogProbs | None] = [None] if sampling.prompt_logprobs else []
        slots = [Slot(Draw(sampling, first_row + n, ids), list(window), scores) for n in range(count)]
        if sampling.max_tokens or sampling.prompt_logprobs:
            self._waiting.append(_Waiting(window, slots, sampling.prompt_logprobs))
        else:
            for slot in slots:
                slot.finish_reason = "length"
        return slots

    def remove(self, slot: Slot) -> None:
        """Ends a text, and frees its place at once. Does nothing if the text has ended."""
        if slot.finish_reason is None:
            slot.finish_reason = "stop"
            self._take_out(slot)

    def step(self) -> list[New]:
        """Computes a piece of the waiting prompts, and one id of each running text.

        Returns:
            what is new, for each text that got an id or ended.
        Raises:
            Whatever the model raises, such as out of memory. Then every text has ended, and nothing is kept.
        """
        try:
            with torch.no_grad(), evaluation_mode(self.model), autocast(self.model.device, self.dtype):
                # Running texts come first. If prompts came first, a text that joins in this step would get two ids: one
                # from its prompt's logits, and one as a running text.
                return [*self._decode(), *self._prefill()]
        except BaseException:
            self._empty()
            raise

    def _decode(self) -> list[New]:
        if not self._running:
            return []
        slots = list(self._running)
        self._cache.reserve(len(slots), self._cache.longest + 1)
        last = [slot.window[-1] for slot in slots]
        if self._compiled and len(slots) > 1:
            return self._drawn(self._compiled.logits(last, self._cache), slots)
        hidden = self._hidden([[id] for id in last], self._cache)
        return self._drawn(self.model.logits(hidden[:, -1]), slots)

    def _prefill(self) -> list[New]:
        """Computes up to `piece` positions of waiting prompts: as many whole ones as fit, or a part of the first."""
        if not self._waiting:
            return []
        group = self._next_group()
        logits, cache = self._whole(group) if group else self._part(self._waiting[0])
        group = group or [self._waiting[0]]
        # The prompts leave the queue only now. If the model had failed, `_empty` would still have found and ended them.
        for _ in group:
            self._waiting.popleft()
        if logits is None:
            # Its next piece comes after the pieces of the other prompts.
            self._waiting.append(group[0])
            return []
        found = []
        for row, waiting in enumerate(group):
            slots = waiting.slots
            self._cache.join(cache, [row] * len(slots))
            for slot in slots:
                slot.row = len(self._running)
                self._running.append(slot)
            found += self._drawn(logits[row].expand(len(slots), -1), slots)
        return found

    def _next_group(self) -> list[_Waiting]:
        """The prompts at the front that go through the network whole and together, padded to the longest one."""
        group: list[_Waiting] = []
        longest = 0
        for waiting in self._waiting:
            if waiting.cache is None and not waiting.scored:
                self._reuse(waiting)
            longest = max(longest, len(waiting.ids))
            if waiting.cache is not None or waiting.scored or longest * (len(group) + 1) > self.piece:
                break
            group.append(waiting)
        return group

    def _reuse(self, waiting: _Waiting) -> None:
        """Copies the keys and values of the beginning that a prompt shares with an earlier text.

        The prompt's own last id is always computed, since its logits are needed.
        """
        found = self.prefixes.longest(waiting.ids[:-1])
        if found and found[1] >= SHORTEST_REUSE:
            kept, n = found
            waiting.cache = kept.select([0], positions=len(waiting.ids), most=n)

    def _whole(self, group: list[_Waiting]) -> tuple[Tensor | None, KVCache]:
        """The logits after each prompt of a group, (B, V), and the prompts' keys and values."""
        lengths = [len(waiting.ids) for waiting in group]
        cache = self._new_cache(len(group), max(lengths))
        hidden = self._hidden([waiting.ids for waiting in group], cache)
        # Drop the padding, which the cache holds as positions.
        cache.cut(lengths)
        last = torch.tensor(lengths, device=hidden.device) - 1
        # The head reads only each row's last position, which saves most of the head's work for a long prompt.
        return self.model.logits(hidden[torch.arange(len(group), device=hidden.device), last]), cache

    def _part(self, waiting: _Waiting) -> tuple[Tensor | None, KVCache]:
        """Computes the next piece of one prompt.

        Returns:
            the logits (1, V) after the last piece, None after any other; and the prompt's keys and values so far.
        """
        if waiting.cache is None:
            waiting.cache = self._new_cache(1, len(waiting.ids))
        done = waiting.cache.longest
        piece = waiting.ids[done : done + self.piece]
        hidden = self._hidden([piece], waiting.cache)
        if waiting.scored:
            slot = waiting.slots[0]
            following = waiting.ids[done + 1 : done + len(piece) + 1]
            logits = self.model.logits(hidden[0, : len(following)])[:, : self.vocab_size]
            n_likeliest = slot.draw.sampling.logprobs or 0
            slot.prompt_logprobs += [
                log_probabilities(row, id, n_likeliest) for row, id in zip(logits, following, strict=True)
            ]
        whole = done + len(piece) == len(waiting.ids)
        return self.model.logits(hidden[:, -1]) if whole else None, waiting.cache

    def _drawn(self, logits: Tensor, slots: Sequence[Slot]) -> list[New]:
        """Draws the next id of each slot from logits (B, V), and brings the slots up to date."""
        # With max_tokens 0, the request asks for the prompt's scores only.
        if not slots[0].draw.sampling.max_tokens:
            return [self._ended(slot) for slot in slots]
        logits = logits[:, : self.vocab_size].float()
        # One pass is enough: a row with a NaN or an infinity has no finite sum. (Nor has a row whose sum is over 3e38,
        # but no sound model gives that.)
        finite = torch.isfinite(logits.sum(dim=-1)).tolist()
        good = [n for n, is_finite in enumerate(finite) if is_finite]
        ids = iter(choose(logits if len(good) == len(slots) else logits[good], [slots[n].draw for n in good]))
        found = [
            self._advanced(slot, next(ids), row) if is_finite else self._failed(slot)
            for slot, row, is_finite in zip(slots, logits, finite, strict=True)
        ]
        for new in found:
            if new.finish_reason:
                self._take_out(new.slot)
        return found

    def _advanced(self, slot: Slot, id: int, logits: Tensor) -> New:
        sampling = slot.draw.sampling
        logprobs = None if sampling.logprobs is None else log_probabilities(logits, id, sampling.logprobs)
        if id in sampling.stop_ids:
            slot.finish_reason = "stop"
            return New(slot, None, finish_reason="stop")
        slot.draw.note(id)
        slot.window.append(id)
        slot.n_new += 1
        if slot.n_new == sampling.max_tokens:
            slot.finish_reason = "length"
        elif len(slot.window) > self.block_size:
            self._slide(slot)
        return New(slot, id, logprobs, slot.finish_reason)

    def _slide(self, slot: Slot) -> None:
        """A full window gives up its older part, or the text ends."""
        if not slot.draw.sampling.slide:
            slot.finish_reason = "length"
            return
        self._leave(slot)
        slot.slid = True
        slot.window = slot.window[-max(1, self.block_size // 2) :]
        # Every id has moved to another position, so its keys and values are computed again.
        self._waiting.appendleft(_Waiting(slot.window, [slot]))

    def _ended(self, slot: Slot) -> New:
        slot.finish_reason = "length"
        self._take_out(slot)
        return New(slot, None, finish_reason="length")

    def _failed(self, slot: Slot) -> New:
        # A kept prefix may hold the NaN, and would bring it into other texts.
        self.prefixes.clear()
        slot.finish_reason = "error"
        error = ModelError(
            "the model's output is not finite (a NaN or an infinity): its weights are damaged or diverged; give an "
            "earlier checkpoint or another model"
        )
        return New(slot, None, finish_reason="error", error=error)

    def _take_out(self, slot: Slot) -> None:
        """Frees the place of a text that has ended. Keeps its keys and values for later texts, if there is room."""
        if slot.row is not None:
            if self.prefixes.most_bytes and not slot.slid and slot.finish_reason != "error":
                self.prefixes.keep(slot.window[: self._cache.lengths[slot.row]], self._cache, slot.row)
            self._leave(slot)
            return
        for waiting in list(self._waiting):
            if slot in waiting.slots:
                waiting.slots.remove(slot)
                if not waiting.slots:
                    self._waiting.remove(waiting)

    def _leave(self, slot: Slot) -> None:
        assert slot.row is not None
        self._cache.leave(slot.row)
        last = self._running.pop()
        if last is not slot:
            self._running[slot.row], last.row = last, slot.row
        slot.row = None

    def _empty(self) -> None:
        for slot in [*self._running, *(slot for waiting in self._waiting for slot in waiting.slots)]:
            slot.row, slot.finish_reason = None, slot.finish_reason or "error"
        self._running, self._waiting = [], deque()
        self._cache = self._new_cache(0, 1)
        self.prefixes.clear()

    def _new_cache(self, rows: int, positions: int) -> KVCache:
        return self.model.new_cache(rows, positions, self._cache_dtype)

    def _hidden(self, rows: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
        """Hidden states (B, T, C) of rows of ids. Rows are padded on the right, where causal attention never looks."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        return self.model.hidden(ids.to(self.model.device), cache)


def generate(
    model: Network,
    ids: Ids,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
) -> list[list[int]]:
    """Continues each row of `ids`; a full window slides.

    Args:
        model: see `Engine`.
        ids: (B, T) int64, or rows of any lengths, one id or more each; or one row, as a list of ids.
        max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop_ids: see `Sampling`.
    Returns:
        for each row the new ids alone, at most `max_tokens`, without the stop id that ended it
    Raises:
        ModelError: no ids, an id outside the model's vocabulary, or an output that is not finite.
        UsageError: an option has a value that is not possible.

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
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop_ids=stop_ids,
    )
    engine = Engine(model)
    prompts = check_rows(ids, model.config.vocab_size)
    slots = [
        slot for row, prompt in enumerate(prompts) for slot in engine.add(prompt, sampling, first_row=row)
    ]
    rows: dict[Slot, list[int]] = {slot: [] for slot in slots}
    for new in run(engine):
        if new.id is not None:
            rows[new.slot].append(new.id)
    return list(rows.values())


def run(engine: Engine) -> Iterator[New]:
    """Calls `engine.step` until every text has ended, and yields what each step brings.

    Raises:
        ModelError: a text ended by an error.
    """
    while engine.busy:
        for new in engine.step():
            if new.error:
                raise new.error
            yield new
