"""Tokenizer: text to ids and back, exactly. Text never becomes a special token unless the caller allows it."""

import builtins
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import TextError, TokenizerError
from myna.files import sha256_bytes, write_atomic
from myna.paths import given_path
from myna.text import exchange, gpt2, patterns
from myna.text.characters import check_text
from myna.text.engines import RankModel
from myna.text.given import Allowed, id_list, many, special_split, text_of, warn_of_loss
from myna.text.model import Model
from myna.text.ranks import from_mapping, no_such, save_ranks
from myna.text.stream import ContextStreamDecoder, StreamDecoder, with_offsets
from myna.text.table import TokenTable
from myna.text.tokenizer_json import config_json
from myna.text.training import learn
from myna.text.vocabulary import END_OF_TEXT, Vocabulary, find_end_of_text


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

    def __len__(self) -> int:
        return self.n_vocab

    def __eq__(self, other: object) -> bool:
        """Whether both write the same tokenizer.json: tokens, pattern and special tokens. The names don't count."""
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.model is other.model or self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.sha256)

    # -- making one

    @classmethod
    def gpt2(cls) -> "Tokenizer":
        """GPT-2's own: 50,257 ids, `<|endoftext|>` is 50256. Bundled; needs no network."""
        return cls(_gpt2_model(), "gpt2")

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """Each token is one byte of UTF-8, and the byte is its id. `<|endoftext|>` is 256."""
        # Inside a method, `bytes` is the type. In the class body it is this method, so annotations say builtins.bytes.
        tokens = tuple(bytes([byte]) for byte in range(256))
        return cls(RankModel(Vocabulary(patterns.NONE, tokens, {END_OF_TEXT: 256})), "bytes")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        pattern: str = "gpt2",
        workers: int = 1,
        special_tokens: Sequence[str] = (),
    ) -> "Tokenizer":
        """Learns a vocabulary from texts, in a list or from an iterator.

        Args:
            vocab_size: how many ids in all: 256 bytes, the merges, `<|endoftext|>`, then the special tokens in order.
            pattern: "gpt2", "gpt4", "o200k", or a regular expression.
            workers: processes that split and count; the result is the same for any number.
            special_tokens: names of more special tokens than `<|endoftext|>`.
        Raises:
            TokenizerError: vocab_size is too small, or the texts hold fewer merges than it asks for.
            TextError: one text instead of a list of them, or a lone surrogate.
        """
        learned = learn(texts, vocab_size, patterns.named(pattern), workers, special_tokens=special_tokens)
        return cls(RankModel(learned.vocabulary), f"{patterns.named(pattern).name}-{vocab_size}")

    @classmethod
    def from_ranks(
        cls,
        ranks: Mapping[builtins.bytes, int],
        pattern: str,
        special_tokens: Mapping[str, int] | None = None,
        name: str = "ranks",
    ) -> "Tokenizer":
        """The tokenizer of a rank table in memory, as `tiktoken.Encoding` takes one.

        Args:
            ranks: token -> its rank, which is its id; all 256 single bytes are among them.
            pattern: "gpt2", "gpt4", "o200k", "none", or a regular expression, such as tiktoken's `pat_str`.
            special_tokens: name -> id.
        Raises:
            TokenizerError: a byte is missing, or two tokens have one id.
        """
        return cls(RankModel(from_mapping(ranks, pattern, special_tokens or {}, name)), name)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a tokenizer from a file or directory.

        A directory holds one of these: tokenizer.json; vocab.bpe with encoder.json; merges.txt with vocab.json;
        tokenizer.model; one rank file. If other files of the directory change the ids, `load` applies them, as
        transformers 5 does, or refuses the directory.

        A file is a tokenizer.json, a `.model`, or a `.tiktoken` rank file. `load` ignores the other files of its
        folder. Only with a rank file, `load` also reads the .json file beside it, which `save` writes.

        Raises:
            TokenizerError: there is no tokenizer, or only one whose ids Myna can't reproduce.
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
        """Opens what a `--tokenizer` flag names: an existing path, or else "gpt2" or "bytes".

        Raises:
            TokenizerError: there is none. The message says how to get one that OpenAI publishes, such as "cl100k_base".
        """
        path = given_path(spec, TokenizerError)
        if path.exists():
            found = cls.load(path)
            if not found.is_exact:
                warn_of_loss(spec)
            return found
        if spec in ("gpt2", "bytes"):
            return cls.gpt2() if spec == "gpt2" else cls.bytes()
        raise no_such(spec)

    def with_special_tokens(self, names: Iterable[str]) -> "Tokenizer":
        """The same tokenizer with more special tokens, whose ids follow all others.

        A special token that this tokenizer already has keeps its id.

        Raises:
            TokenizerError: this tokenizer is not byte-level BPE that Myna runs itself.

        >>> Tokenizer.gpt2().with_special_tokens(["<|im_start|>"]).special_tokens
        {'<|endoftext|>': 50256, '<|im_start|>': 50257}
        """
        names = list(names)
        if set(names) <= set(self.special_tokens):
            return self
        return Tokenizer(RankModel(self.vocabulary.with_special_tokens(names)), self.name)

    def extends(self, base: "Tokenizer") -> bool:
        """Whether it gives the same ids as `base`, and differs at most by more special tokens."""
        if self == base:
            return True
        if not isinstance(self.model, RankModel) or not isinstance(base.model, RankModel):
            return False
        added = [name for name in self.special_tokens if name not in base.special_tokens]
        return self == base.with_special_tokens(sorted(added, key=self.special_tokens.__getitem__))

    # -- what it is

    @functools.cached_property
    def n_vocab(self) -> int:
        """One more than the largest id."""
        return len(self._table)

    @property
    def vocab_size(self) -> int:
        """`n_vocab` under the name that transformers uses."""
        return self.n_vocab

    @property
    def is_exact(self) -> bool:
        """Whether ids always decode to the bytes they came from, as with all byte-level BPE."""
        return self.model.is_exact

    @property
    def vocabulary(self) -> Vocabulary:
        """The merges and the pattern of a byte-level BPE tokenizer.

        Raises:
            TokenizerError: this tokenizer is of another kind, and another library runs it.
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
    def _table(self) -> TokenTable:
        return TokenTable(self.model, self.name)

    def id_bytes(self) -> np.ndarray | None:
        """How many bytes of UTF-8 each id stands for: (n_vocab,) int64; 0 for special tokens and unused ids.

        None where ids don't keep all of the text (see `is_exact`): then an id stands for no fixed number of bytes.
        """
        return self._table.lengths() if self.is_exact else None

    def text_ids(self) -> np.ndarray:
        """Which ids stand for text: (n_vocab,) bool. Special tokens don't. [UNK] does, since it replaces text."""
        return self._table.is_text()

    # -- text to ids

    def encode(self, text: str, allowed_special: Allowed = ()) -> list[int]:
        """The ids of a text.

        Args:
            allowed_special: names of special tokens that the text may spell, or "all"; any other is ordinary text.
        Raises:
            TextError: the text has a lone surrogate, which UTF-8 cannot hold.
            TokenizerError: an allowed name is no special token of this tokenizer.
        """
        check_text(text)
        split = special_split(self.special_tokens, allowed_special, self.name)
        if split is None:
            return self.model.encode(text)
        ids: list[int] = []
        for number, part in enumerate(split(text)):
            # Every second part is the name of a special token.
            if number % 2:
                ids.append(self.special_tokens[part])
            elif part:
                ids += self.model.encode(part)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """`encode` without special tokens, under the name that tiktoken uses."""
        return self.encode(text)

    def encode_bytes(self, data: builtins.bytes) -> list[int]:
        """The ids of bytes, which need not be UTF-8. These ids decode to the same bytes.

        Raises:
            TextError: the bytes are not UTF-8, and this tokenizer is not byte-level BPE.
        """
        if not isinstance(data, builtins.bytes):
            raise TextError(f"encode_bytes takes bytes, not {type(data).__name__}; `encode` takes text")
        return self.model.encode_bytes(data)

    def encode_single_token(self, token: str | builtins.bytes) -> int:
        """The id of a text or bytes that are one token, or of a special token's name.

        Raises:
            TokenizerError: there is no such token.
        """
        if isinstance(token, str):
            if token in self.special_tokens:
                return self.special_tokens[token]
            check_text(token)
            token = token.encode("utf-8")
        found = self._table.ids.get(token)
        if found is None:
            raise TokenizerError(
                f"{token!r} is not one token of {self.name}; `encode` gives the ids of any text"
            )
        return found

    def encode_batch(self, texts: Iterable[str], allowed_special: Allowed = ()) -> list[list[int]]:
        """`encode` of each text."""
        if allowed_special:
            return [self.encode(text, allowed_special) for text in many(texts, "texts")]
        ids, lengths = self.encode_arrays(texts)
        ends = np.cumsum(lengths)
        flat = ids.tolist()
        return [flat[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]

    def encode_arrays(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts in one flat array, and how many each text has: fast, and without special tokens.

        Returns:
            ids     (N,) uint16, or uint32 when the vocabulary needs it
            lengths (number of texts,) int64
        """
        texts = list(many(texts, "texts"))
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
        return self._table.one(token)

    def decode_bytes(self, ids: Iterable[int]) -> builtins.bytes:
        """The bytes that ids stand for.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        if self.model.decode_together is not None:
            return self.decode(ids).encode("utf-8")
        return self._table.join(id_list(ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text that ids stand for.

        Args:
            errors: what to do with bytes that are not UTF-8, as in `bytes.decode`: "replace" writes U+FFFD for them,
                "ignore" drops them, "strict" refuses them.
        Raises:
            TokenizerError: an id is outside the vocabulary. TextError: bytes are not UTF-8, and errors is "strict".
        """
        if self.model.decode_together is None:
            return text_of(self.decode_bytes(ids), errors)
        ids = id_list(ids)
        for i in ids:
            # Raises for an id outside the vocabulary.
            self.token_bytes(i)
        return self.model.decode_together(ids)

    def decode_batch(self, rows: Iterable[Iterable[int]], errors: str = "replace") -> list[str]:
        """`decode` of each row of ids."""
        return [self.decode(ids, errors) for ids in many(rows, "rows of ids")]

    def decode_with_offsets(self, ids: Iterable[int]) -> tuple[str, list[int]]:
        """The text that ids stand for, and for each id the number of the character in which it begins.

        >>> Tokenizer.gpt2().decode_with_offsets([64, 30325, 222])     # the last two share an emoji
        ('a 😀', [0, 1, 2])
        """
        ids = id_list(ids)
        if self.model.decode_together is None:
            return with_offsets(map(self.token_bytes, ids))
        stream, text, offsets = self.stream_decoder(), "", []
        for i in ids:
            offsets.append(len(text))
            text += stream.feed([i])
        return text + stream.finish(), offsets

    def stream_decoder(self) -> StreamDecoder | ContextStreamDecoder:
        """For ids that come one by one: `feed` them, then `finish`."""
        if self.model.decode_together is None:
            return StreamDecoder(self.decode_bytes)
        return ContextStreamDecoder(self.decode)

    # -- files

    def to_json(self) -> builtins.bytes:
        """The bytes of the tokenizer.json that `save` writes. Equal tokenizers give equal bytes."""
        return self._json

    @functools.cached_property
    def _json(self) -> builtins.bytes:
        return self.model.to_json()

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of `to_json`. A dataset stores it to identify its tokenizer."""
        return sha256_bytes(self._json)

    def save(self, path: str | Path) -> None:
        """Writes a tokenizer so that `load` reads the same one.

        Args:
            path: a directory, which may exist. `save` writes tokenizer.json and tokenizer_config.json there. If the
                path ends in `.tiktoken`, `save` writes a rank file instead, and beside it a small .json file with the
                pattern and the special tokens.
        Raises:
            OutputError: the path can't be written.
        """
        if str(path).endswith(".tiktoken"):
            save_ranks(self.vocabulary, Path(path))
            return
        write_atomic(Path(path, "tokenizer.json"), self.to_json())
        write_atomic(Path(path, "tokenizer_config.json"), config_json(self.special_tokens))


@functools.cache
def _gpt2_model() -> RankModel:
    return RankModel(gpt2.vocabulary())
