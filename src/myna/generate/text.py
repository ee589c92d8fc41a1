"""Text -> more text, as it comes: never half a character, and stops that span tokens.

A token may hold a part of a character, and a stop text may begin in one token and end in another. So text is held
back while it could still turn out to be part of either.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from myna.errors import ModelError, UsageError
from myna.generate.engine import stream
from myna.generate.sampling import Sampling
from myna.model.network import Network
from myna.text.stream import ContextStreamDecoder, StreamDecoder
from myna.text.tokenizer import Tokenizer


class StopText:
    """Passes text on up to the first of some stop texts.

    Attributes:
        stopped: a stop text was met; everything from it on is swallowed.

    >>> gate = StopText(["END"])
    >>> gate.feed("one E"), gate.feed("N two EN"), gate.feed("D three"), gate.stopped
    ('one ', 'EN two ', '', True)
    """

    def __init__(self, stops: Sequence[str]):
        if not all(stops):
            raise UsageError("a stop text is empty; give at least one character, or leave it out")
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


def stream_text(
    model: Network,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    count: int = 1,
    stop: Sequence[str] = (),
    first_row: int = 0,
    autocast_dtype: torch.dtype | None = None,
) -> Iterator[list[str]]:
    """Yields the new text of each of `count` continuations of `prompt`, step by step; a row may get "" in a step.

    Args:
        prompt: ordinary text, also where it spells a special token; "" stands for the beginning of a document.
        sampling: a row ends at the end-of-text token too, besides its `stop_ids`.
        stop: texts that end a row; they are no part of it.
        first_row, autocast_dtype: see `engine.stream`.
    Raises:
        UsageError, ModelError: as `engine.stream`; and a tokenizer that is not the model's.
    """
    if count < 1:
        raise UsageError(f"count is {count}; give 1 or more")
    if tokenizer.n_vocab > model.config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.n_vocab} ids and the model {model.config.vocab_size}; "
            "use the tokenizer that the model was trained with"
        )
    ids = tokenizer.encode(prompt) or [tokenizer.eot]
    decoders = [tokenizer.stream_decoder() for _ in range(count)]
    gates = [StopText(stop) for _ in range(count)]
    steps = stream(
        model,
        [ids] * count,
        dataclasses.replace(sampling, stop_ids={*sampling.stop_ids, tokenizer.eot}),
        first_row=first_row,
        vocab_size=tokenizer.n_vocab,
        autocast_dtype=autocast_dtype,
    )
    return _pieces(steps, decoders, gates)


def _pieces(
    steps: Iterator[list[int | None]],
    decoders: Sequence[StreamDecoder | ContextStreamDecoder],
    gates: Sequence[StopText],
) -> Iterator[list[str]]:
    for step in steps:
        yield [
            "" if id is None or gate.stopped else gate.feed(decoder.feed([id]))
            for id, decoder, gate in zip(step, decoders, gates, strict=True)
        ]
        if all(gate.stopped for gate in gates):
            return
    yield [gate.feed(decoder.finish()) + gate.finish() for decoder, gate in zip(decoders, gates, strict=True)]


def continue_text(
    model: Network,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    count: int = 1,
    stop: Sequence[str] = (),
    autocast_dtype: torch.dtype | None = None,
) -> list[str]:
    """The whole new text of each continuation; see `stream_text`."""
    steps = stream_text(
        model, tokenizer, prompt, sampling, count=count, stop=stop, autocast_dtype=autocast_dtype
    )
    return ["".join(pieces) for pieces in zip(*steps, strict=True)]
