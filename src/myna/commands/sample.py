"""`myna sample`: a model continues a prompt."""

import functools
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from myna.commands import parse
from myna.errors import ModelError, UsageError

if TYPE_CHECKING:
    from myna.model.config import GPTConfig

CACHE_BYTES = 2 << 30
MOST_ROWS = 64


@dataclass(frozen=True)
class Sample:
    """Let a model continue a text. It ends at the end-of-text token, at --stop, or after --max-tokens."""

    model: tyro.conf.Positional[str]
    """A run folder (its newest checkpoint), a checkpoint, a Hugging Face GPT-2 folder, or a hub name such as gpt2."""
    prompt: str
    """The text to continue. Ordinary text, also where it spells a special token. Empty: the beginning of a document."""
    count: int = 1
    """How many continuations. The first of many is the one that --count 1 gives for the same seed."""
    max_tokens: int = 128
    """New tokens at most, in each."""
    temperature: float = 1.0
    """0 is greedy (always the likeliest token), 1 the model's own distribution; more is bolder."""
    top_k: int | None = None
    """Choose among this many of the likeliest tokens. Default: all."""
    top_p: float | None = None
    """Choose among the likeliest tokens that together hold this probability, above 0 and at most 1. Default: all."""
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """End before this text, wherever its tokens begin and end. May be given several times."""
    seed: int | None = None
    """The same seed gives the same text. Default: another one each time."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's folder or file, for a model that has none beside it. Default: the model's own."""


def main(args: Sequence[str]) -> None:
    """Runs `myna sample`."""
    call = parse(Sample, args, command="sample")
    if not call.model:
        raise UsageError(
            "MODEL is an empty name; name a run, a checkpoint, a folder or a hub name such as gpt2"
        )
    from myna.generate.text import stream_text
    from myna.model.open import open_model
    from myna.text.tokenizer import Tokenizer
    from myna.train.ranks import resolve_device

    opened = open_model(call.model, resolve_device(call.device))
    tokenizer = Tokenizer.open(call.tokenizer) if call.tokenizer else opened.tokenizer
    if tokenizer is None:
        raise ModelError(f"{opened.path} has no tokenizer beside the weights; name one with --tokenizer")
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a character that the terminal can't show is no reason to stop
        sys.stdout.reconfigure(errors="replace")
    if call.count < 1:
        raise UsageError(f"--count is {call.count}; give 1 or more")
    together = min(call.count, rows_at_once(opened.model.config))
    continuations = functools.partial(
        stream_text,
        opened.model,
        tokenizer,
        call.prompt,
        max_tokens=call.max_tokens,
        temperature=call.temperature,
        top_k=call.top_k,
        top_p=call.top_p,
        seed=call.seed,
        stop=call.stop,
    )
    if call.count == 1:
        steps = continuations()
        print(call.prompt, end="", flush=True)
        for (piece,) in steps:
            print(piece, end="", flush=True)
        print()
        return
    for first in range(0, call.count, together):
        rows = min(together, call.count - first)
        texts = [call.prompt] * rows
        for pieces in continuations(count=rows, first_row=first):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        for number, text in enumerate(texts, start=first + 1):
            print(f"--- {number} of {call.count} ---\n{text}", flush=True)


def rows_at_once(config: "GPTConfig") -> int:
    """How many continuations to compute together, so that their keys and values (fp32) stay under `CACHE_BYTES`."""
    a_row = 2 * 4 * config.n_layer * config.block_size * config.n_embd
    return max(1, min(MOST_ROWS, CACHE_BYTES // a_row))
