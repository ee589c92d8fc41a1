"""`myna sample`: a model continues a prompt."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from myna.commands import parse
from myna.errors import ModelError


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
    steps = stream_text(
        opened.model,
        tokenizer,
        call.prompt,
        count=call.count,
        max_tokens=call.max_tokens,
        temperature=call.temperature,
        top_k=call.top_k,
        top_p=call.top_p,
        seed=call.seed,
        stop=call.stop,
    )
    if call.count == 1:
        print(call.prompt, end="", flush=True)
        for (piece,) in steps:
            print(piece, end="", flush=True)
        print()
        return
    texts = [call.prompt] * call.count
    for pieces in steps:
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    for number, text in enumerate(texts, start=1):
        print(f"--- {number} of {call.count} ---\n{text}")
