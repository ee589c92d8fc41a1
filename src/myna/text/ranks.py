"""Rank files, tiktoken's format (`.tiktoken`): a line per token, its bytes in base64 and its rank, which is its id.

They leave out the pattern and the special tokens. We write those into a small JSON file beside them; those of the files
that OpenAI publishes are known here.
"""

import base64
from collections.abc import Mapping
from pathlib import Path

from myna.errors import TokenizerError
from myna.files import is_named, json_bytes, write_atomic
from myna.parsing import read_object
from myna.text import patterns
from myna.text.vocabulary import Vocabulary, tokens_by_id

# What the published rank files leave to the code that reads them.
# Source: https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py
PUBLISHED_RANKS: dict[str, tuple[str, dict[str, int]]] = {
    "r50k_base": ("gpt2", {"<|endoftext|>": 50256}),
    "p50k_base": ("gpt2", {"<|endoftext|>": 50256}),
    "cl100k_base": (
        "gpt4",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": ("o200k", {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
}

RANKS_URL = "https://openaipublic.blob.core.windows.net/encodings"
OTHER_NAMES = {"gpt4": "cl100k_base", "gpt-4": "cl100k_base", "gpt-4o": "o200k_base"}


def how_to_get(name: str) -> str | None:
    """How to get a tokenizer that OpenAI publishes as a rank file, in a line; None for any other name.

    >>> print(how_to_get("r50k_base"))
    r50k_base is GPT-2's tokenizer, which is bundled; give gpt2
    >>> how_to_get("gpt5")
    """
    asked = Path(name).name.removesuffix(".tiktoken")
    found = OTHER_NAMES.get(asked, asked)
    if found not in PUBLISHED_RANKS:
        return None
    if found == "r50k_base":
        return f"{name} is GPT-2's tokenizer, which is bundled; give gpt2"
    what = f"{name} is OpenAI's tokenizer" if asked == found else f"{name} is OpenAI's tokenizer {found}"
    return (
        f"{what}, and its rank file is not bundled; download {RANKS_URL}/{found}.tiktoken (the file that tiktoken "
        f"downloads), keep its name, and give its path, as in --tokenizer FOLDER/{found}.tiktoken"
    )


def no_such(spec: str) -> TokenizerError:
    """The error for a name that is no tokenizer here: says how to get one."""
    if spec.startswith("train:"):
        return TokenizerError(
            f"{spec!r} is what a recipe says, and names no tokenizer; make one with `myna tokenizer train FILES "
            f"--vocab-size {spec.removeprefix('train:')} --out DIR`, and name DIR"
        )
    return TokenizerError(
        how_to_get(spec) or f"no tokenizer {spec!r}: give gpt2, bytes, a directory or a file"
    )


def rank_file(ranks: Mapping[bytes, int]) -> bytes:
    """The bytes of a rank file, its lines in the order of ranks."""
    by_rank = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in by_rank)


def read_ranks(data: bytes, name: str) -> tuple[bytes | None, ...]:
    """The tokens of a rank file by rank; None for a rank that no line has.

    Raises:
        TokenizerError: a line is not base64 and a rank, a rank is there twice, or the ranks are far too sparse.
    """
    by_rank: dict[int, bytes] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            spelled, digits = line.split()
            token, rank = base64.b64decode(spelled, validate=True), int(digits)
            if rank < 0:
                raise ValueError
        except ValueError:
            raise TokenizerError(f"{name}, line {number:,}: expected a base64 token and its rank") from None
        if rank in by_rank:
            raise TokenizerError(f"{name}, line {number:,}: the rank {rank} is there twice")
        by_rank[rank] = token
    try:
        return tokens_by_id(by_rank)
    except TokenizerError as error:
        raise TokenizerError(f"{name} is no rank file: {error}") from None


def from_mapping(
    ranks: Mapping[bytes, int], pattern: str, special_tokens: Mapping[str, int], name: str
) -> Vocabulary:
    """The vocabulary of ranks in memory, as a tiktoken user has them.

    Raises:
        TokenizerError: a token is no bytes, a rank is there twice, and what `Vocabulary` refuses.
    """
    by_rank: dict[int, bytes] = {}
    for token, rank in ranks.items():
        if not isinstance(token, bytes) or type(rank) is not int or rank < 0 or rank in by_rank:
            raise TokenizerError(
                f"{name}: {token!r}: {rank!r} is no token (bytes) with a rank of its own (int)"
            )
        by_rank[rank] = token
    try:
        return Vocabulary(patterns.named(pattern), tokens_by_id(by_rank), dict(special_tokens))
    except TokenizerError as error:
        raise TokenizerError(f"{name}: {error}") from None


def from_ranks(data: bytes, pattern: str, special_tokens: Mapping[str, int], name: str) -> Vocabulary:
    """The vocabulary of a rank file and what such a file leaves out.

    Raises:
        TokenizerError: the file is not one, lacks a byte, or its ranks collide with each other or a special token.
    """
    tokens = read_ranks(data, name)
    try:
        return Vocabulary(patterns.named(pattern), tokens, dict(special_tokens))
    except TokenizerError as error:
        raise TokenizerError(f"{name}: {error}") from None


def load_ranks(path: Path) -> Vocabulary:
    """The vocabulary of a rank file, with the pattern and special tokens from the file beside it, or as published.

    Raises:
        TokenizerError: it is damaged, or nothing says its pattern.
        OSError: it can't be read.
    """
    beside = path.with_name(path.name + ".json")
    name = path.name.removesuffix(".tiktoken")
    if is_named(beside):
        try:
            content = read_object(beside, TokenizerError, "expected pattern and special_tokens")
            pattern, specials = content["pattern"], dict(content["special_tokens"])
            if not isinstance(pattern, str) or not all(type(i) is int for i in specials.values()):
                raise TypeError
        except (KeyError, TypeError, ValueError):
            raise TokenizerError(f"{beside} is damaged: expected pattern and special_tokens") from None
    elif name in PUBLISHED_RANKS:
        pattern, specials = PUBLISHED_RANKS[name]
    else:
        raise TokenizerError(
            f"{path} holds ranks but no pattern; say which in {beside.name}, as in "
            '{"pattern": "gpt4", "special_tokens": {"<|endoftext|>": 100257}}'
        )
    return from_ranks(path.read_bytes(), pattern, specials, str(path))


def save_ranks(vocabulary: Vocabulary, path: Path) -> None:
    """Writes a rank file, and beside it the JSON file with its pattern and special tokens."""
    pattern = vocabulary.pattern
    beside = {
        "pattern": pattern.python if pattern.name == "custom" else pattern.name,
        "special_tokens": dict(vocabulary.special_tokens),
    }
    write_atomic(path, rank_file(vocabulary.ranks))
    write_atomic(path.with_name(path.name + ".json"), json_bytes(beside))
