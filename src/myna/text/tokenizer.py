"""Tokenizer: text to ids and back, exactly, with special tokens that text can never become by itself."""

import builtins
import functools
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import TokenizerError
from myna.files import sha256_bytes, write_atomic
from myna.text import exchange, gpt2, patterns
from myna.text.characters import check_text
from myna.text.engines import RankModel
from myna.text.model import Model
from myna.text.ranks import how_to_get, save_ranks
from myna.text.stream import ContextStreamDecoder, StreamDecoder
from myna.text.tokenizer_json import config_json
from myna.text.training import learn
from myna.text.vocabulary import END_OF_TEXT, Vocabulary, find_end_of_text

# `join` keeps a record of 80 bytes per item; many at once would need more memory than the text.
JOIN_IDS = 1 << 16


class Tokenizer:
    """Text to ids and back.

    >>> tok = Tokenizer.gpt2()
    >>> tok.encode("Hello, world<|endoftext|>")      # text that spells a special token is text
    [15496, 11, 995, 27, 91, 437, 1659, 5239, 91, 29]
    >>> tok.encode("Hello, world<|endoftext|>", allowed_special={"<|endoftext|>"})
    [15496, 11, 995, 50256]
    >>> tok.decode([15496, 11, 995])
    'Hello, world'
    """

    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name
        self.special_tokens = model.special_tokens

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.model, self.name)

    def __repr__(self) -> str:
        return f"<Tokenizer {self.name}: {self.n_vocab:,} ids>"

    # -- making one

    @classmethod
    def gpt2(cls) -> "Tokenizer":
        """GPT-2's own: 50,257 ids, `<|endoftext|>` is 50256. Bundled; needs no network."""
        return cls(_gpt2_model(), "gpt2")

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """A token is a byte of UTF-8, its id the byte; `<|endoftext|>` is 256."""
        tokens = tuple(bytes([byte]) for byte in range(256))
        return cls(RankModel(Vocabulary(patterns.NONE, tokens, {END_OF_TEXT: 256})), "bytes")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, pattern: str = "gpt2", workers: int = 1
    ) -> "Tokenizer":
        """Learns a vocabulary from texts that are in memory or come one by one.

        Args:
            vocab_size: all ids: 256 bytes, the merges, and `<|endoftext|>`, which is the last.
            pattern: "gpt2", "gpt4", or a regular expression.
            workers: processes that split and count; the result is the same for any number.
        Raises:
            TokenizerError: vocab_size is under 257, or the texts hold fewer merges than it asks for.
            TextError: a lone surrogate.
        """
        learned = learn(texts, vocab_size, patterns.named(pattern), workers)
        return cls(RankModel(learned.vocabulary), f"{patterns.named(pattern).name}-{vocab_size}")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a tokenizer from a file or directory.

        A directory holds a tokenizer.json, or vocab.bpe and encoder.json (merges.txt and vocab.json), or a
        tokenizer.model, or one rank file; a file is a tokenizer.json, a `.model`, or a `.tiktoken` rank file.

        Raises:
            TokenizerError: there is none, or it can't be read exactly.
        """
        model = exchange.load(Path(path))
        place = Path(path).resolve()
        return cls(model, place.stem if place.is_file() else place.name)

    @classmethod
    def from_json(cls, data: builtins.bytes, name: str = "tokenizer.json") -> "Tokenizer":
        """The tokenizer in the bytes of a Hugging Face tokenizer.json."""
        return cls(exchange.read_json(data, name), name)

    @classmethod
    def open(cls, spec: str) -> "Tokenizer":
        """What a `--tokenizer` flag takes: "gpt2", "bytes", a directory or a file. A file of that name goes first.

        Raises:
            TokenizerError: there is none; says how to get one that OpenAI publishes, such as "cl100k_base".
        """
        if os.path.exists(spec):
            return cls.load(spec)
        if spec in ("gpt2", "bytes"):
            return cls.gpt2() if spec == "gpt2" else cls.bytes()
        if spec.startswith("train:"):
            raise TokenizerError(
                f"{spec!r} is what a recipe says, and names no tokenizer; make one with `myna tokenizer train FILES "
                f"--vocab-size {spec.removeprefix('train:')} --out DIR`, and name DIR"
            )
        raise TokenizerError(
            how_to_get(spec) or f"no tokenizer {spec!r}: give gpt2, bytes, a directory or a file"
        )

    # -- what it is

    @functools.cached_property
    def n_vocab(self) -> int:
        """One more than the largest id."""
        return len(self._bytes_of)

    @property
    def vocabulary(self) -> Vocabulary:
        """The merges and the pattern of a byte-level BPE tokenizer.

        Raises:
            TokenizerError: this one is of another make, run by its own library.
        """
        if not isinstance(self.model, RankModel):
            raise TokenizerError(
                f"{self.name} is not byte-level BPE of a known pattern; only its ids can be used"
            )
        return self.model.vocabulary

    @property
    def eot(self) -> int:
        """The id that begins each document.

        Raises:
            TokenizerError: this tokenizer has no end-of-text token.
        """
        name = find_end_of_text(self.special_tokens)
        if name is None:
            raise TokenizerError(
                f"tokenizer {self.name} has no end-of-text token; add one named {END_OF_TEXT}"
            )
        return self.special_tokens[name]

    @functools.cached_property
    def _bytes_of(self) -> list[builtins.bytes | None]:
        """The bytes of each id; for a special token its name; None for an id that stands for nothing."""
        table = self.model.token_table()
        table += [None] * (max(self.special_tokens.values(), default=-1) + 1 - len(table))
        for name, i in self.special_tokens.items():
            table[i] = name.encode("utf-8")
        return table

    @functools.cached_property
    def _all_bytes(self) -> list[builtins.bytes]:
        """The same without a None, or empty if there is one: decoding needs no check per id."""
        table = [token for token in self._bytes_of if token is not None]
        return table if len(table) == self.n_vocab else []

    def id_bytes(self) -> np.ndarray:
        """How many bytes of UTF-8 each id stands for: (n_vocab,) int64; 0 for special tokens and unused ids."""
        lengths = np.array([len(token or b"") for token in self._bytes_of], dtype=np.int64)
        lengths[list(self.special_tokens.values())] = 0
        return lengths

    # -- text to ids

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
            return self.model.encode(text)
        ids: list[int] = []
        for part in self._special_split(allowed_special)(text):
            if part in allowed_special:
                ids.append(self.special_tokens[part])
            elif part:
                ids += self.model.encode(part)
        return ids

    def _special_split(self, allowed: Collection[str]) -> Callable[[str], list[str]]:
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
        ids, lengths = self.model.encode_arrays(texts)
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
        """The bytes that ids stand for.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        if self.model.decode is not None:
            return self.decode(ids).encode("utf-8")
        ids = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        if self._all_bytes and ids and min(ids) >= 0 and max(ids) < self.n_vocab:
            parts = (ids[i : i + JOIN_IDS] for i in range(0, len(ids), JOIN_IDS))
            return b"".join(b"".join(map(self._all_bytes.__getitem__, part)) for part in parts)
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; bytes that are not UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        if self.model.decode is None:
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        ids = list(ids)
        for i in ids:
            self.token_bytes(i)  # refuses what is outside
        return self.model.decode(ids)

    def stream_decoder(self) -> StreamDecoder | ContextStreamDecoder:
        """For ids that come one by one: `feed` them, then `finish`."""
        if self.model.decode is None:
            return StreamDecoder(self.decode_bytes)
        return ContextStreamDecoder(self.decode)

    # -- files

    def to_json(self) -> builtins.bytes:
        """The bytes of the tokenizer.json that `save` writes: the same for the same tokenizer."""
        return self._json

    @functools.cached_property
    def _json(self) -> builtins.bytes:
        return self.model.to_json()

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of `to_json`: what a dataset remembers its tokenizer by."""
        return sha256_bytes(self._json)

    def save(self, path: str | Path) -> None:
        """Writes a tokenizer so that `load` reads the same one.

        Args:
            path: a directory, which may exist, for tokenizer.json and tokenizer_config.json; or a name that ends
                in `.tiktoken`, for a rank file, and a small .json file beside it for what ranks leave out.
        Raises:
            OutputError: it can't be written.
        """
        if str(path).endswith(".tiktoken"):
            save_ranks(self.vocabulary, Path(path))
            return
        end_of_text = find_end_of_text(self.special_tokens)
        write_atomic(Path(path, "tokenizer.json"), self.to_json())
        write_atomic(Path(path, "tokenizer_config.json"), config_json(end_of_text))


@functools.cache
def _gpt2_model() -> RankModel:
    return RankModel(gpt2.vocabulary())
