"""Text -> more text, as it comes: never half a character, and stops that span tokens.

A token may hold a part of a character, and a stop text may begin in one token and end in another. So text is held
back while it could still turn out to be part of either.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from myna.errors import ModelError, UsageError
from myna.generate.engine import PIECE, Engine, FinishReason, New, Slot
from myna.generate.sampling import Sampling
from myna.model.network import Network
from myna.text.tokenizer import Tokenizer


class StopText:
    """Passes text on up to the first of some stop texts.

    Attributes:
        stopped: a stop text was met; everything from it on is swallowed.

    >>> gate = StopText(["END"])
    >>> gate.feed("one E"), gate.feed("N two EN"), gate.feed("D three"), gate.stopped
    ('one ', 'EN two ', '', True)
    """

    def __init__(self, stops: Collection[str]):
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Takes new text; returns what is certain to come before any stop."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        longest = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]

    def finish(self) -> str:
        """No more text comes: what was held back, which is no stop after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that is a beginning of `stop`, and not all of it."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-n:])), 0)


class Continuation:
    """The text of one slot, as it comes.

    Attributes:
        finish_reason: see `Slot`; "stop" for the end-of-text token and a stop text too. None while it goes on.
        n_new: ids so far.
    """

    def __init__(self, slot: Slot, tokenizer: Tokenizer):
        self.slot = slot
        self.finish_reason: FinishReason | None = None
        self.n_new = 0
        self._decoder = tokenizer.stream_decoder()
        self._gate = StopText(slot.draw.sampling.stop)

    def take(self, new: New) -> str:
        """The text that is certain now that this has come; at the end, all of it."""
        text = ""
        if new.id is not None:
            self.n_new += 1
            text = self._gate.feed(self._decoder.feed([new.id]))
        if new.finish_reason:
            text += self.end(new.finish_reason)
        elif self._gate.stopped:
            self.finish_reason = "stop"
        return text

    def end(self, reason: FinishReason) -> str:
        """No more comes; the text that was held back."""
        text = self._gate.feed(self._decoder.finish()) + self._gate.finish()
        self.finish_reason = "stop" if self._gate.stopped else reason
        return text


@dataclass(frozen=True)
class Piece:
    """What a step brought to one text.

    Attributes:
        text: what is certain now; it may be empty, or more than the new id's own.
    """

    continuation: Continuation
    text: str
    new: New


class TextEngine:
    """An engine that takes and gives text. See `Engine`.

    Args:
        tokenizer: a text ends at its end-of-text token.
    Raises:
        ModelError: the tokenizer has more ids than the model. TokenizerError: it has no end-of-text token.
    """

    def __init__(
        self,
        model: Network,
        tokenizer: Tokenizer,
        *,
        autocast_dtype: torch.dtype | None = None,
        piece: int = PIECE,
        prefix_bytes: int = 0,
    ):
        if tokenizer.n_vocab > model.config.vocab_size:
            raise ModelError(
                f"the tokenizer has {tokenizer.n_vocab} ids and the model {model.config.vocab_size}; "
                "use the tokenizer that the model was trained with"
            )
        self.tokenizer, self._eot = tokenizer, tokenizer.eot
        self.engine = Engine(
            model,
            vocab_size=tokenizer.n_vocab,
            autocast_dtype=autocast_dtype,
            piece=piece,
            prefix_bytes=prefix_bytes,
        )
        self._texts: dict[Slot, Continuation] = {}

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""
        return self.engine.busy

    def add(
        self, prompt: str | Sequence[int], sampling: Sampling, *, count: int = 1, first_row: int = 0
    ) -> list[Continuation]:
        """Texts that go on from a prompt.

        Args:
            prompt: ids, or ordinary text, also where it spells a special token; "" stands for the beginning of a
                document.
            count, first_row: see `Engine.add`.
        """
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        ends = dataclasses.replace(sampling, stop_ids={*sampling.stop_ids, self._eot})
        slots = self.engine.add(ids or [self._eot], ends, count=count, first_row=first_row)
        texts = [Continuation(slot, self.tokenizer) for slot in slots]
        for text, slot in zip(texts, slots, strict=True):
            text.finish_reason = slot.finish_reason
            if slot.finish_reason is None:
                self._texts[slot] = text
        return texts

    def remove(self, text: Continuation) -> str:
        """Ends a text; its place is free at once. Returns what was held back of it."""
        self.engine.remove(text.slot)
        self._texts.pop(text.slot, None)
        return text.end("stop") if text.finish_reason is None else ""

    def step(self) -> list[Piece]:
        """One step of the engine; see `Engine.step`."""
        try:
            news = self.engine.step()
        except BaseException:
            self._texts.clear()
            raise
        pieces = []
        for new in news:
            text = self._texts[new.slot]
            pieces.append(Piece(text, text.take(new), new))
            if text.finish_reason:
                self.remove(text)
        return pieces


def stream_text(
    model: Network,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    sampling: Sampling,
    *,
    count: int = 1,
    first_row: int = 0,
    autocast_dtype: torch.dtype | None = None,
    piece: int = PIECE,
) -> Iterator[list[str]]:
    """Yields the new text of each of `count` continuations of `prompt`, step by step; a row may get "" in a step.

    Args:
        prompt, first_row: see `TextEngine.add`.
        autocast_dtype: see `Engine`.
        piece: see `Engine`; with the model's whole window, there are no more steps than `max_tokens`.
    Raises:
        UsageError: no continuation asked for.
        ModelError: a tokenizer that is not the model's, or an output that is not finite.
    """
    if count < 1:
        raise UsageError(f"count is {count}; give 1 or more")
    engine = TextEngine(model, tokenizer, autocast_dtype=autocast_dtype, piece=piece)
    texts = engine.add(prompt, sampling, count=count, first_row=first_row)
    return _steps(engine, texts)


def _steps(engine: TextEngine, texts: Sequence[Continuation]) -> Iterator[list[str]]:
    row = {text: n for n, text in enumerate(texts)}
    while engine.busy:
        step = [""] * len(texts)
        for piece in engine.step():
            if piece.new.error:
                raise piece.new.error
            step[row[piece.continuation]] += piece.text  # a text whose window slid gets two ids
        yield step


def continue_text(
    model: Network,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    count: int = 1,
    autocast_dtype: torch.dtype | None = None,
) -> list[str]:
    """The whole new text of each continuation; see `stream_text`."""
    steps = stream_text(model, tokenizer, prompt, sampling, count=count, autocast_dtype=autocast_dtype)
    return ["".join(pieces) for pieces in zip(*steps, strict=True)] or [""] * count
