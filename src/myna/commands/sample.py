"""`myna sample`: models continue prompts."""

import io
import json
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse
from myna.commands.model_flags import RunningFlags, open_to_run
from myna.errors import DataError, UsageError
from myna.parsing import parse_json

if TYPE_CHECKING:
    from myna.generate.sampling import Sampling
    from myna.generate.text import Continuation, TextEngine
    from myna.model.config import NetworkConfig

CACHE_BYTES = 2 << 30
MOST_ROWS = 64
MOST_COUNT = 1_000_000  # of texts for each prompt, each of which is listed before the first is made


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Let models continue a text. It ends at the end-of-text token, at --stop, or after --max-tokens."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL...")]
    """Run folders (the newest checkpoint of each), checkpoints, Hugging Face folders, or hub names such as gpt2."""
    running: Annotated[RunningFlags, tyro.conf.arg(name="")]
    prompt: str | None = None
    """The text to continue. Ordinary text, also where it spells a special token. Empty: the beginning of a document."""
    file: Path | None = None
    """Prompts, in place of --prompt: a text file, one a line; or a .jsonl file of strings, or objects with "prompt"."""
    count: int = 1
    """How many continuations of each prompt. The first of many is the one that --count 1 gives for the same seed."""
    max_tokens: int = 128
    """New tokens at most, in each."""
    temperature: float = 1.0
    """0 is greedy (always the most likely token), 1 the model's own distribution; more is bolder."""
    top_k: int | None = None
    """Choose among this many of the most likely tokens. Default: all."""
    top_p: float | None = None
    """Keep the most likely tokens until their probabilities add up to this (above 0, at most 1). Default: all."""
    min_p: float | None = None
    """Keep tokens at least this fraction as likely as the most likely one (0 to 1). Default: all."""
    repetition_penalty: float = 1.0
    """Over 1 makes tokens that are in the text already less likely; 1.1 to 1.3 is usual."""
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """End before this text, wherever its tokens begin and end. May be given several times."""
    seed: int | None = None
    """The same seed gives the same texts. Default: another one each time, the same for all models."""
    json: bool = False
    """Print a JSON object for each text, a line each."""


@dataclass(frozen=True)
class Text:
    """One continuation to be made, or made."""

    prompt: str
    number: int  # among those of its prompt, from 0
    new: str = ""
    n_new: int = 0
    finish_reason: str | None = None


def main(args: Sequence[str]) -> None:
    """Runs `myna sample`."""
    call = parse(Sample, args, command="sample")
    if not call.models:
        raise UsageError("no MODEL; name a run, a checkpoint, a folder or a hub name such as gpt2")
    if not 1 <= call.count <= MOST_COUNT:
        raise UsageError(f"--count is {call.count}; give 1 to {MOST_COUNT:,}")
    prompts = read_prompts(call)
    seed = random.SystemRandom().randrange(1 << 32) if call.seed is None else call.seed
    from myna.generate.sampling import Sampling
    from myna.generate.text import TextEngine

    sampling = Sampling(
        max_tokens=call.max_tokens,
        temperature=call.temperature,
        top_k=call.top_k,
        top_p=call.top_p,
        min_p=call.min_p,
        repetition_penalty=call.repetition_penalty,
        seed=seed,
        stop=call.stop,
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal can't show is no reason to stop.
        sys.stdout.reconfigure(errors="replace")
    total = len(prompts) * call.count
    for model in call.models:
        running = open_to_run(model, call.running)
        running.store()
        engine = TextEngine(running.opened.model, running.tokenizer, autocast_dtype=running.precision.dtype)
        if len(call.models) > 1 and not call.json:
            print(f"=== {model} ===", flush=True)
        if total == 1 and not call.json:
            stream(engine, prompts[0], sampling)
            continue
        together = rows_at_once(running.opened.model.config)
        for number, text in enumerate(in_order(engine, prompts, call.count, sampling, together), start=1):
            if call.json:
                about = {"model": model, "prompt": text.prompt, "number": text.number, "seed": seed}
                done = {"text": text.new, "tokens": text.n_new, "finish_reason": text.finish_reason}
                print(json.dumps(about | done, ensure_ascii=False), flush=True)
            else:
                print(f"--- {number} of {total} ---\n{text.prompt}{text.new}", flush=True)


def read_prompts(call: Sample) -> list[str]:
    """The prompts, at least one.

    Raises:
        UsageError: neither or both of --prompt and --file. DataError: the file can't be read, or holds something else.
    """
    if (call.prompt is None) == (call.file is None):
        raise UsageError(
            "give --prompt TEXT, or --file FILE with prompts" + " (not both)" * (call.file is not None)
        )
    if call.prompt is not None:
        return [call.prompt]
    assert call.file is not None
    try:
        lines = call.file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{call.file} cannot be read as text: {error}; give a file of prompts in UTF-8"
        ) from error
    prompts = [line for line in lines if line.strip()]
    if call.file.suffix == ".jsonl":
        prompts = [
            _prompt_of(line, f"{call.file}, line {n}") for n, line in enumerate(lines, 1) if line.strip()
        ]
    if not prompts:
        raise DataError(f"{call.file} holds no prompt; write one a line")
    return prompts


def _prompt_of(line: str, where: str) -> str:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise DataError(f'{where} is no JSON: {error}; write a string, or an object with "prompt"') from error
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise DataError(f'{where} has no prompt; write a string, or an object with "prompt"')
    return prompt


def stream(engine: "TextEngine", prompt: str, sampling: "Sampling") -> None:
    """One text, shown as it comes."""
    engine.add(prompt, sampling)
    print(prompt, end="", flush=True)
    while engine.busy:
        for piece in engine.step():
            if piece.new.error:
                print()
                raise piece.new.error
            print(piece.text, end="", flush=True)
    print()


def in_order(
    engine: "TextEngine", prompts: Sequence[str], count: int, sampling: "Sampling", together: int
) -> Iterator[Text]:
    """All texts, in the order asked for. So many are computed together; one that ends makes room for the next."""
    waiting = deque(Text(prompt, number) for prompt in prompts for number in range(count))
    order: dict[Continuation, Text] = {}  # those not handed out yet, in the order asked for
    while waiting or order:
        room = together - sum(made.finish_reason is None for made in order)
        while waiting and room > 0:
            first = waiting.popleft()
            alike = [first]  # and further ones of the same prompt, which is then computed once
            while waiting and waiting[0].number > first.number and len(alike) < room:
                alike.append(waiting.popleft())
            made = engine.add(first.prompt, sampling, count=len(alike), first_row=first.number)
            order |= zip(made, alike, strict=True)
            room -= len(alike)
        for piece in engine.step():
            if piece.new.error:
                raise piece.new.error
            one = piece.continuation
            order[one] = replace(order[one], new=order[one].new + piece.text)
        while order and (one := next(iter(order))).finish_reason:
            yield replace(order.pop(one), n_new=one.n_new, finish_reason=one.finish_reason)


def rows_at_once(config: "NetworkConfig") -> int:
    """How many continuations to compute together, so that their keys and values (fp32) stay under `CACHE_BYTES`."""
    a_row = 2 * 4 * config.n_layer * config.block_size * config.n_embd
    return max(1, min(MOST_ROWS, CACHE_BYTES // a_row))
