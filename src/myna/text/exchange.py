"""Tokenizer files: Hugging Face's tokenizer.json, `.tiktoken` ranks, GPT-2's own pair of files.

Each that we write is read back as the same tokenizer, pattern included. What is read is checked, so that no file
gives ids by a rule it doesn't follow: a tokenizer.json that is byte-level BPE of a pattern we know, in the order of its
ids, is ours to run; any other goes to its own library.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from myna.errors import TokenizerError
from myna.files import json_bytes, write_atomic
from myna.text import gpt2, patterns
from myna.text.engines import RankModel, rank_file
from myna.text.foreign import SENTENCEPIECE_FORMAT, HuggingFaceModel, SentencePieceModel
from myna.text.tokenizer import Model, Tokenizer
from myna.text.vocabulary import Vocabulary

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
}


def to_json(vocabulary: Vocabulary) -> bytes:
    """A tokenizer.json that Hugging Face's libraries read as the same tokenizer."""
    specials = dict(sorted(vocabulary.special_tokens.items(), key=lambda item: item[1]))
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab = {gpt2.spell(token): i for token, i in vocabulary.ranks.items()}
    return json_bytes(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": name, **added} for name, i in specials.items()],
            "normalizer": None,
            "pre_tokenizer": vocabulary.pattern.pre_tokenizer(),
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                # True: a pre-token that is a token is that token, as in tiktoken, though no merge makes it.
                "ignore_merges": not vocabulary.is_complete,
                "vocab": vocab | specials,
                "merges": [" ".join(map(gpt2.spell, merge)) for merge in vocabulary.merges],
            },
        }
    )


def config_json(end_of_text: str | None) -> bytes:
    """A tokenizer_config.json: its class keeps transformers from putting GPT-2's pattern in place of ours."""
    return json_bytes(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end_of_text,
            "eos_token": end_of_text,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000_000,
        }
    )


def load(path: Path) -> Tokenizer:
    """A tokenizer from a file or directory.

    Raises:
        TokenizerError: there is none, or it can't be read.
    """
    name = path.resolve().stem if path.is_file() else path.resolve().name
    try:
        if path.is_dir():
            return Tokenizer(_load_directory(path), name)
        if path.suffix == ".tiktoken":
            return Tokenizer(_load_ranks(path), name)
        if path.suffix == ".model":
            return Tokenizer(SentencePieceModel(path.read_bytes(), path.name), name)
        return Tokenizer(read_json(path.read_bytes(), str(path)), name)
    except OSError as error:
        raise TokenizerError(f"cannot read the tokenizer {path}: {error.strerror}") from error


def _load_directory(path: Path) -> Model:
    if (path / "tokenizer.json").is_file():
        return read_json((path / "tokenizer.json").read_bytes(), str(path / "tokenizer.json"))
    for merges, vocab in (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")):
        if (path / merges).is_file() and (path / vocab).is_file():
            return read_gpt2_files((path / merges).read_bytes(), (path / vocab).read_bytes(), str(path))
    if (path / "tokenizer.model").is_file():
        return SentencePieceModel((path / "tokenizer.model").read_bytes(), str(path / "tokenizer.model"))
    ranks = sorted(path.glob("*.tiktoken"))
    if len(ranks) == 1:
        return _load_ranks(ranks[0])
    raise TokenizerError(
        f"no tokenizer in {path}: expected tokenizer.json, vocab.bpe and encoder.json, vocab.json and merges.txt, "
        "tokenizer.model, or one .tiktoken file"
    )


# -- tokenizer.json


def read_json(data: bytes, name: str) -> Model:
    """The tokenizer in a tokenizer.json: ours where its rule is ours, else its own library's.

    Raises:
        TokenizerError: it is no tokenizer.json.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise TokenizerError(f"{name} is no tokenizer: not JSON") from None
    if isinstance(content, dict) and content.get("format") == SENTENCEPIECE_FORMAT:
        try:
            return SentencePieceModel(base64.b64decode(content["model"], validate=True), name)
        except (KeyError, TypeError, ValueError):
            raise TokenizerError(f"{name} is damaged: its sentencepiece model is not base64") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerError(f"{name} is no tokenizer.json: it has no model")
    vocabulary = _our_vocabulary(content)
    return RankModel(vocabulary) if vocabulary else HuggingFaceModel(data, name)


def _our_vocabulary(content: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary of a parsed tokenizer.json, or None when its rule is not ours."""
    model = content["model"]
    pattern = patterns.from_pre_tokenizer(content.get("pre_tokenizer"))
    plain = (
        model.get("type", "BPE") == "BPE"
        and not any(
            model.get(key)
            for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        )
        and not content.get("normalizer")
        and (content.get("post_processor") or {"type": "ByteLevel"}).get("type") == "ByteLevel"
        and (content.get("decoder") or {}).get("type") == "ByteLevel"
        and all(token.get("special") for token in content.get("added_tokens") or [])
    )
    if pattern is None or not plain:
        return None
    try:
        specials = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
        by_id = {i: gpt2.to_bytes(token) for token, i in model["vocab"].items() if token not in specials}
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        merges = tuple((gpt2.to_bytes(left), gpt2.to_bytes(right)) for left, right in pairs)
        vocabulary = Vocabulary(pattern, tuple(by_id.get(i) for i in range(max(by_id) + 1)), specials)
    except (KeyError, TypeError, ValueError, TokenizerError):
        return None
    # Ids in the order of merging, and each token made by just the merge that the ranks imply: then ranks say it all.
    if vocabulary.merges != merges or not (vocabulary.is_complete or model.get("ignore_merges")):
        return None
    return vocabulary


# -- rank files


def read_ranks(data: bytes, name: str) -> tuple[bytes | None, ...]:
    """The tokens of a `.tiktoken` file by rank.

    Raises:
        TokenizerError: a line is not base64 and a rank, or a rank or token is there twice.
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
        except (ValueError, binascii.Error):
            raise TokenizerError(f"{name}, line {number:,}: expected a base64 token and its rank") from None
        if rank in by_rank:
            raise TokenizerError(f"{name}, line {number:,}: the rank {rank} is there twice")
        by_rank[rank] = token
    if not by_rank or max(by_rank) > 16 * len(by_rank) + 1024:
        raise TokenizerError(f"{name} is no rank file: it has {len(by_rank)} tokens")
    return tuple(by_rank.get(i) for i in range(max(by_rank) + 1))


def _load_ranks(path: Path) -> Model:
    beside = path.with_name(path.name + ".json")
    name = path.name.removesuffix(".tiktoken")
    if beside.is_file():
        try:
            content = json.loads(beside.read_bytes())
            pattern, specials = content["pattern"], dict(content["special_tokens"])
        except (ValueError, KeyError, TypeError):
            raise TokenizerError(f"{beside} is damaged: expected pattern and special_tokens") from None
    elif name in PUBLISHED_RANKS:
        pattern, specials = PUBLISHED_RANKS[name]
    else:
        raise TokenizerError(
            f"{path} holds ranks but no pattern; say which in {beside.name}, as in "
            '{"pattern": "gpt4", "special_tokens": {"<|endoftext|>": 100257}}'
        )
    return RankModel(from_ranks(path.read_bytes(), pattern, specials, str(path)))


def from_ranks(data: bytes, pattern: str, special_tokens: Mapping[str, int], name: str) -> Vocabulary:
    """The vocabulary of a `.tiktoken` file and what such a file leaves out.

    Raises:
        TokenizerError: the file is not one, lacks a byte, or its ranks collide with each other or a special token.
    """
    tokens = read_ranks(data, name)
    try:
        return Vocabulary(patterns.named(pattern), tokens, dict(special_tokens))
    except TokenizerError as error:
        raise TokenizerError(f"{name}: {error}") from None


def save_ranks(vocabulary: Vocabulary, path: Path) -> None:
    """Writes a `.tiktoken` file, and beside it a small JSON file with the pattern and the special tokens."""
    pattern = vocabulary.pattern
    beside = {
        "pattern": pattern.python if pattern.name == "own" else pattern.name,
        "special_tokens": dict(vocabulary.special_tokens),
    }
    write_atomic(path, rank_file(vocabulary.ranks))
    write_atomic(path.with_name(path.name + ".json"), json_bytes(beside))


# -- GPT-2's own files


def read_gpt2_files(merges: bytes, vocab: bytes, name: str) -> Model:
    """The tokenizer of a `vocab.bpe` and `encoder.json` (on the hub: `merges.txt` and `vocab.json`).

    Raises:
        TokenizerError: they are not such files, or don't belong together.
    """
    try:
        pairs = gpt2.read_merges(merges)
        ids = json.loads(vocab)
        made = {gpt2.spell(left + right) for left, right in pairs}
        specials = {token: i for token, i in ids.items() if len(token) != 1 and token not in made}
        by_id = {i: gpt2.to_bytes(token) for token, i in ids.items() if token not in specials}
        vocabulary = Vocabulary(patterns.GPT2, tuple(by_id.get(i) for i in range(max(by_id) + 1)), specials)
    except (KeyError, TypeError, ValueError, AttributeError, TokenizerError) as error:
        raise TokenizerError(f"{name}: not GPT-2's pair of merges and vocabulary ({error})") from None
    if vocabulary.merges != tuple(pairs):
        raise TokenizerError(
            f"{name}: the merges and the vocabulary don't belong together, or not in the order of ids"
        )
    return RankModel(vocabulary)


def save_gpt2_files(vocabulary: Vocabulary, directory: Path) -> None:
    """Writes `vocab.bpe` and `encoder.json`, byte for byte as OpenAI's are for GPT-2.

    Raises:
        TokenizerError: the vocabulary has another pattern, which these files can't say.
    """
    if vocabulary.pattern.name != "gpt2" or not vocabulary.is_complete:
        raise TokenizerError(
            "vocab.bpe and encoder.json can only hold vocabularies of GPT-2's pattern; use tokenizer.json"
        )
    lines = ["#version: 0.2", *(" ".join(map(gpt2.spell, merge)) for merge in vocabulary.merges)]
    ids = {gpt2.spell(token): i for token, i in vocabulary.ranks.items()} | dict(vocabulary.special_tokens)
    write_atomic(directory / "vocab.bpe", ("\n".join(lines) + "\n").encode("utf-8"))
    write_atomic(directory / "encoder.json", json.dumps(ids).encode("ascii"))
