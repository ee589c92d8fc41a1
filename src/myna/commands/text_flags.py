"""The flags of every command that lets models write, and how they are read."""

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.errors import DataError, UsageError
from myna.parsing import parse_json
from myna.paths import given_path

if TYPE_CHECKING:
    from myna.generate.sampling import Sampling
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """How the next token is chosen, and what ends a text."""

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
    """End before this text, even if it begins or ends inside a token. May be given several times."""
    seed: int | None = None
    """The same seed gives the same texts. Default: another one each time, the same for all models."""


@dataclass(frozen=True, kw_only=True)
class TextFlags:
    """What to continue, and how."""

    prompt: str | None = None
    """The text to continue. Ordinary text, also where it spells a special token. Empty: the beginning of a document."""
    file: Path | None = None
    """Prompts, in place of --prompt: a text file, one per line; or .jsonl with strings, or objects with "prompt"."""
    count: int = 1
    """How many continuations of each prompt. The first of many is the one that --count 1 gives for the same seed."""
    max_tokens: int = 128
    """New tokens at most, in each."""
    sampling: Annotated[SamplingFlags, tyro.conf.arg(name="")]


def sampling_of(flags: SamplingFlags, max_tokens: int) -> "Sampling":
    """How to sample; a seed that was not given is drawn here.

    Raises:
        UsageError: a value that cannot be.
    """
    from myna.generate.sampling import Sampling

    return Sampling(
        max_tokens=max_tokens,
        temperature=flags.temperature,
        top_k=flags.top_k,
        top_p=flags.top_p,
        min_p=flags.min_p,
        repetition_penalty=flags.repetition_penalty,
        seed=random.SystemRandom().randrange(1 << 32) if flags.seed is None else flags.seed,
        stop=flags.stop,
    )


def read_prompts(flags: TextFlags) -> list[str]:
    """The prompts, at least one.

    Raises:
        UsageError: neither or both of --prompt and --file, or an impossible --count. DataError: the file can't be read,
            or holds something else; see `given_path` too.
    """
    if flags.count < 1:
        raise UsageError(f"--count is {flags.count}; give 1 or more")
    if (flags.prompt is None) == (flags.file is None):
        raise UsageError(
            "give --prompt TEXT, or --file FILE with prompts" + " (not both)" * (flags.file is not None)
        )
    if flags.prompt is not None:
        return [flags.prompt]
    assert flags.file is not None
    file = given_path(flags.file)
    try:
        # Only line breaks end a line: a form feed, or U+2028 in JSON, is a part of a prompt.
        lines = file.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text: {error}; give a file of prompts in UTF-8") from error
    prompts = [line for line in lines if line.strip()]
    if file.suffix == ".jsonl":
        prompts = [_prompt_of(line, f"{file}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise DataError(f"{file} holds no prompt; write one per line")
    return prompts


def warn_of_cut(prompts: Sequence[str], tokenizer: "Tokenizer", context: int) -> None:
    """Says how many prompts have more tokens than a model sees."""
    n = sum(len(tokenizer.encode(prompt)) > context for prompt in prompts)
    if n:
        which = "the prompt has" if len(prompts) == 1 else f"{n:,} of {len(prompts):,} prompts have"
        warnings.warn(f"{which} more than {context} tokens; the model sees the last {context}", stacklevel=2)


def _prompt_of(line: str, where: str) -> str:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise DataError(f'{where} is no JSON: {error}; write a string, or an object with "prompt"') from error
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise DataError(f'{where} has no prompt; write a string, or an object with "prompt"')
    return prompt
