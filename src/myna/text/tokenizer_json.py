"""Byte-level BPE in tokenizer.json, the format of Hugging Face's libraries: written, and read if its rule is ours."""

from collections.abc import Collection, Mapping
from typing import Any

from myna.errors import TokenizerError
from myna.files import json_bytes
from myna.text import gpt2, patterns
from myna.text.patterns import Pattern
from myna.text.vocabulary import CHAT_TEMPLATE, CHAT_TOKENS, Vocabulary, find_end_of_text, tokens_by_id


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


def config_json(special_tokens: Collection[str]) -> bytes:
    """A tokenizer_config.json: its class keeps transformers from putting GPT-2's pattern in place of ours.

    One with the tokens of a conversation also has the template by which transformers writes one.
    """
    end_of_text = find_end_of_text(special_tokens)
    chats = end_of_text is not None and set(CHAT_TOKENS) <= set(special_tokens)
    return json_bytes(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end_of_text,
            "eos_token": end_of_text,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000_000,
            **({"chat_template": CHAT_TEMPLATE} if chats else {}),
        }
    )


def read_vocabulary(content: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary of a parsed tokenizer.json, or None when its rule is not ours."""
    pattern = patterns.from_pre_tokenizer(content.get("pre_tokenizer"))
    try:
        return _plain_vocabulary(content, pattern) if pattern and _is_plain(content) else None
    except (AttributeError, KeyError, TypeError, ValueError, TokenizerError):
        return None  # it is damaged, or has sections that we never heard of


def _is_plain(content: Mapping[str, Any]) -> bool:
    """Whether nothing but a pattern, merges and special tokens decides the ids."""
    model = content["model"]
    return (
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


def _plain_vocabulary(content: Mapping[str, Any], pattern: Pattern) -> Vocabulary | None:
    model = content["model"]
    specials = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    by_id = {i: gpt2.to_bytes(token) for token, i in model["vocab"].items() if token not in specials}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    merges = tuple((gpt2.to_bytes(left), gpt2.to_bytes(right)) for left, right in pairs)
    vocabulary = Vocabulary(pattern, tokens_by_id(by_id), specials)
    # Ids in the order of merging, and each token made by just the merge that the ranks imply: then ranks say it all.
    if vocabulary.merges != merges or not (vocabulary.is_complete or model.get("ignore_merges")):
        return None
    return vocabulary
