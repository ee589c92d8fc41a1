"""`myna sample`: a model continues a prompt."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse
from myna.commands.model_flags import RunningModelFlags, open_to_run
from myna.errors import UsageError

if TYPE_CHECKING:
    from myna.model.config import NetworkConfig

CACHE_BYTES = 2 << 30
MOST_ROWS = 64


@dataclass(frozen=True)
class Sample:
    """Let a model continue a text. It ends at the end-of-text token, at --stop, or after --max-tokens."""

    model: Annotated[RunningModelFlags, tyro.conf.arg(name="")]
    prompt: str
    """The text to continue. Ordinary text, also where it spells a special token. Empty: the beginning of a document."""
    count: int = 1
    """How many continuations. The first of many is the one that --count 1 gives for the same seed."""
    max_tokens: int = 128
    """New tokens at most, in each."""
    temperature: float = 1.0
    """0 is greedy (always the most likely token), 1 the model's own distribution; more is bolder."""
    top_k: int | None = None
    """Choose among this many of the most likely tokens. Default: all."""
    top_p: float | None = None
    """Keep the most likely tokens until their probabilities add up to this (above 0, at most 1). Default: all."""
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """End before this text, wherever its tokens begin and end. May be given several times."""
    seed: int | None = None
    """The same seed gives the same text. Default: another one each time."""


def main(args: Sequence[str]) -> None:
    """Runs `myna sample`."""
    call = parse(Sample, args, command="sample")
    if call.count < 1:
        raise UsageError(f"--count is {call.count}; give 1 or more")
    from myna.generate.sampling import Sampling
    from myna.generate.text import stream_text

    sampling = Sampling(
        max_tokens=call.max_tokens,
        temperature=call.temperature,
        top_k=call.top_k,
        top_p=call.top_p,
        seed=call.seed,
    )
    opened, tokenizer, precision = open_to_run(call.model)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal can't show is no reason to stop.
        sys.stdout.reconfigure(errors="replace")
    together = min(call.count, rows_at_once(opened.model.config))
    for first in range(0, call.count, together):
        rows = min(together, call.count - first)
        steps = stream_text(
            opened.model,
            tokenizer,
            call.prompt,
            sampling,
            count=rows,
            stop=call.stop,
            first_row=first,
            autocast_dtype=precision.dtype,
        )
        if call.count == 1:
            print(call.prompt, end="", flush=True)
            for (piece,) in steps:
                print(piece, end="", flush=True)
            print()
            return
        texts = [call.prompt] * rows
        for pieces in steps:
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        for number, text in enumerate(texts, start=first + 1):
            print(f"--- {number} of {call.count} ---\n{text}", flush=True)


def rows_at_once(config: "NetworkConfig") -> int:
    """How many continuations to compute together, so that their keys and values (fp32) stay under `CACHE_BYTES`."""
    a_row = 2 * 4 * config.n_layer * config.block_size * config.n_embd
    return max(1, min(MOST_ROWS, CACHE_BYTES // a_row))
