"""Tokenizer: text to ids and back, exactly, with special tokens that text can never become by itself."""

import builtins
import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import TextError, TokenizerError
from myna.files import sha256_bytes, write_atomic
from myna.text import gpt2, patterns
from myna.text.engines import RankEncoder
from myna.text.gpt2 import END_OF_TEXT
from myna.text.stream import StreamDecoder


@dataclass(frozen=True)
class Vocabulary:
    """What a byte-level BPE tokenizer is, apart from the engines that run it.

    Attributes:
        pattern: where text is cut before merging.
        tokens: the bytes of each ordinary id, in the order of ids, which is the order of merging; None where a rank
            file leaves an id free.
        special_tokens: name -> id; disjoint from the ids of `tokens`.
        end_of_text: the name of the special token that begins each document.
    """

    pattern: patterns.Pattern
    tokens: tuple[bytes | None, ...]
    special_tokens: dict[str, int]
    end_of_text: str | None

    @functools.cached_property
    def ranks(self) -> dict[bytes, int]:
        """token -> id."""
        return {token: i for i, token in enumerate(self.tokens) if token is not None}


class Tokenizer:
    """A byte-level BPE tokenizer.

    >>> tok = Tokenizer.gpt2()
    >>> tok.encode("Hello, world<|endoftext|>")      # text that spells a special token is text
    [15496, 11, 995, 27, 91, 437, 1659, 5239, 91, 29]
    >>> tok.encode("Hello, world<|endoftext|>", allowed_special={"<|endoftext|>"})
    [15496, 11, 995, 50256]
    >>> tok.decode([15496, 11, 995])
    'Hello, world'
    """

    def __init__(self, vocabulary: Vocabulary, name: str) -> None:
        self.vocabulary = vocabulary
        self.name = name
        self.special_tokens = dict(vocabulary.special_tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.vocabulary, self.name)

    def __repr__(self) -> str:
        return f"<Tokenizer {self.name}: {self.n_vocab:,} ids>"

    # -- making one

    @classmethod
    def gpt2(cls) -> "Tokenizer":
        """GPT-2's own: 50,257 ids, `<|endoftext|>` is 50256. Bundled; needs no network."""
        return cls(Vocabulary(patterns.GPT2, gpt2.tokens(), {END_OF_TEXT: 50256}, END_OF_TEXT), "gpt2")

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """A token is a byte of UTF-8, its id the byte; `<|endoftext|>` is 256."""
        tokens = tuple(bytes([byte]) for byte in range(256))
        return cls(Vocabulary(patterns.NONE, tokens, {END_OF_TEXT: 256}, END_OF_TEXT), "bytes")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, pattern: str = "gpt2") -> "Tokenizer":
        """Learns a vocabulary from texts that are in memory or come one by one.

        Args:
            vocab_size: all ids: 256 bytes, the merges, and `<|endoftext|>`, which is the last.
            pattern: "gpt2", "gpt4", or a regular expression.
        Raises:
            TokenizerError: vocab_size is under 257, or the texts hold fewer merges than it asks for.
            TextError: a lone surrogate.
        """
        from myna.text.training import train_vocabulary

        return cls(train_vocabulary(texts, vocab_size, patterns.named(pattern)), f"trained-{vocab_size}")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a tokenizer from a directory or file.

        Raises:
            TokenizerError: there is none, or it can't be read exactly.
        """
        from myna.text.exchange import load

        return load(Path(path))

    @classmethod
    def from_json(cls, data: builtins.bytes, name: str = "tokenizer.json") -> "Tokenizer":
        """The tokenizer in the bytes of a Hugging Face tokenizer.json."""
        from myna.text.exchange import from_json

        return from_json(data, name)

    @classmethod
    def open(cls, spec: str) -> "Tokenizer":
        """What a `--tokenizer` flag takes: "gpt2", "bytes", a directory or a file."""
        if spec == "gpt2" and not Path(spec).exists():
            return cls.gpt2()
        if spec == "bytes" and not Path(spec).exists():
            return cls.bytes()
        if not Path(spec).exists():
            raise TokenizerError(f"no tokenizer {spec!r}: give gpt2, bytes, a directory or a file")
        return cls.load(spec)

    # -- what it is

    @functools.cached_property
    def n_vocab(self) -> int:
        """One more than the largest id."""
        return max([len(self.vocabulary.tokens), *(i + 1 for i in self.special_tokens.values())])

    @property
    def eot(self) -> int:
        """The id that begins each document.

        Raises:
            TokenizerError: this tokenizer has no end-of-text token.
        """
        name = self.vocabulary.end_of_text
        if name is None:
            raise TokenizerError(
                f"tokenizer {self.name} has no end-of-text token; add one named {END_OF_TEXT}"
            )
        return self.special_tokens[name]

    @functools.cached_property
    def _bytes_of(self) -> list[builtins.bytes | None]:
        """The bytes of each id; for a special token its name, None for an id that stands for nothing."""
        table: list[builtins.bytes | None] = [*self.vocabulary.tokens]
        table += [None] * (self.n_vocab - len(table))
        for name, i in self.special_tokens.items():
            table[i] = name.encode("utf-8")
        return table

    def id_bytes(self) -> np.ndarray:
        """How many bytes of UTF-8 each id stands for: (n_vocab,) int64; 0 for special tokens and unused ids."""
        lengths = np.array([len(token or b"") for token in self._bytes_of], dtype=np.int64)
        lengths[list(self.special_tokens.values())] = 0
        return lengths

    # -- text to ids

    @functools.cached_property
    def _encoder(self) -> RankEncoder:
        return RankEncoder(self.vocabulary.pattern, self.vocabulary.ranks)

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of a text.

        Args:
            allowed_special: names of special tokens that the text may spell; any other is ordinary text.
        Raises:
            TextError: the text has a lone surrogate, which UTF-8 cannot hold.
            TokenizerError: an allowed name is no special token of this tokenizer.
        """
        check_text(text)
        if not allowed_special:
            return self._encoder.encode(text)
        ids: list[int] = []
        for part in self._special_split(allowed_special)(text):
            if part in allowed_special:
                ids.append(self.special_tokens[part])
            elif part:
                ids += self._encoder.encode(part)
        return ids

    def _special_split(self, allowed: Collection[str]) -> Any:
        import re

        if isinstance(allowed, str):
            raise TokenizerError(f"allowed_special takes a set of names: {{{allowed!r}}}")
        for name in allowed:
            if name not in self.special_tokens:
                known = ", ".join(self.special_tokens) or "none"
                raise TokenizerError(f"{name!r} is no special token of {self.name}; it has: {known}")
        longest_first = sorted(allowed, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")").split

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        ids, lengths = self.encode_arrays(texts)
        ends = np.cumsum(lengths)
        flat = ids.tolist()
        return [flat[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]

    def encode_arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The bulk path: the ids of many texts, flat and in order, and how many ids each has. No special tokens, ever.

        Returns:
            ids     (N,) uint16, or uint32 when the vocabulary needs it
            lengths (len(texts),) int64
        """
        for text in texts:
            check_text(text)
        ids, lengths = self._encoder.encode_arrays(texts)
        return ids.astype(np.uint16 if self.n_vocab <= 1 << 16 else np.uint32, copy=False), lengths

    # -- ids to text

    def token_bytes(self, token: int) -> builtins.bytes:
        """The bytes of one id; a special token gives its name.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        found = self._bytes_of[token] if 0 <= token < self.n_vocab else None
        if found is None:
            raise TokenizerError(
                f"id {token} is outside the vocabulary of {self.name} ({self.n_vocab:,} ids)"
            )
        return found

    def decode_bytes(self, ids: Iterable[int]) -> builtins.bytes:
        """The bytes that ids stand for."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def stream_decoder(self) -> StreamDecoder:
        """For ids that come one by one: `feed` them, then `finish`."""
        return StreamDecoder(self.token_bytes)

    # -- files

    def to_json(self) -> builtins.bytes:
        """The bytes of the Hugging Face tokenizer.json that `save` writes: the same for the same tokenizer."""
        from myna.text.exchange import to_json

        return to_json(self.vocabulary)

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of `to_json`: what a dataset remembers its tokenizer by."""
        return sha256_bytes(self.to_json())

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json into a directory, which may exist.

        Raises:
            OutputError: it can't be written.
        """
        from myna.text.exchange import config_json

        write_atomic(Path(directory, "tokenizer.json"), self.to_json())
        write_atomic(Path(directory, "tokenizer_config.json"), config_json(self.vocabulary))


def check_text(text: str) -> None:
    """Refuses text that is no Unicode text.

    Raises:
        TextError: a lone surrogate.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"character {error.start:,} of the text is a lone surrogate (U+{ord(text[error.start]):04X}), which is no "
            "character; read the text as UTF-8 with errors='replace', or remove it"
        ) from None
