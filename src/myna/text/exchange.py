"""Tokenizer files: Hugging Face's tokenizer.json, and the others."""

import json
from pathlib import Path
from typing import Any

from myna.errors import TokenizerError
from myna.files import json_bytes
from myna.text import bpe, gpt2, patterns
from myna.text.gpt2 import END_OF_TEXT
from myna.text.tokenizer import Tokenizer, Vocabulary


def to_json(vocabulary: Vocabulary) -> bytes:
    """A tokenizer.json that Hugging Face's libraries read as the same tokenizer."""
    ranks = vocabulary.ranks
    merges = []
    for rank, token in enumerate(vocabulary.tokens):
        if token is not None and len(token) > 1:
            merges.append(" ".join(map(gpt2.spell, bpe.parts(token, ranks, below=rank))))
    vocab = {gpt2.spell(token): rank for token, rank in ranks.items()}
    specials = sorted(vocabulary.special_tokens.items(), key=lambda item: item[1])
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return json_bytes(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": name, **added} for name, i in specials],
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
                "ignore_merges": False,
                "vocab": vocab | dict(specials),
                "merges": merges,
            },
        }
    )


def config_json(vocabulary: Vocabulary) -> bytes:
    """A tokenizer_config.json: its class keeps transformers from putting GPT-2's pattern in place of ours."""
    name = vocabulary.end_of_text
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    return json_bytes(
        {**config, "bos_token": name, "eos_token": name, "unk_token": None, "add_prefix_space": False}
    )


def load(path: Path) -> Tokenizer:
    """A tokenizer from a directory or file."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise TokenizerError(f"no tokenizer at {path}: expected a tokenizer.json or a directory with one")
    return from_json(file.read_bytes(), path.name)


def from_json(data: bytes, name: str) -> Tokenizer:
    """A tokenizer from the bytes of a tokenizer.json."""
    try:
        content = json.loads(data)
        model = content["model"]
        pattern = patterns.from_pre_tokenizer(content["pre_tokenizer"])
        added = {token["content"]: token["id"] for token in content["added_tokens"]}
        by_id = {i: spelled for spelled, i in model["vocab"].items() if spelled not in added}
        tokens = tuple(gpt2.to_bytes(by_id[i]) if i in by_id else None for i in range(max(by_id) + 1))
    except (ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f"{name} is no byte-level BPE tokenizer.json ({error!r})") from None
    if pattern is None:
        raise TokenizerError(f"{name}: its pre-tokenizer is not one that myna knows")
    return Tokenizer(Vocabulary(pattern, tokens, added, END_OF_TEXT if END_OF_TEXT in added else None), name)
