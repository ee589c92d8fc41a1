"""Tokenizers of other makes, run by their own libraries: any Hugging Face tokenizer.json, and sentencepiece models.

Their ids are their library's. What is ours: no special token comes out of text, no library's panic takes the process
down, and it is known whether ids keep all of a text. Byte-level BPE without a normalizer does; a vocabulary that folds
case, drops spaces or knows an [UNK] does not, and then no id has bytes of its own.
"""

import base64
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from myna.errors import TextError, TokenizerError, first_line
from myna.files import json_bytes
from myna.parsing import parse_json
from myna.signals import answering
from myna.text import gpt2
from myna.text.model import flat

# Some vocabularies forget to call their control tokens special.
CONTROL_TOKEN = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# What the `format` of a tokenizer.json says that is only an envelope around a sentencepiece model.
SENTENCEPIECE_FORMAT = "sentencepiece"

T = TypeVar("T")

# Encoded in one call into a library, which answers no signal: a second or so.
BATCH_CHARACTERS = 1 << 20


def _answering(texts: Sequence[str], encode: Callable[[], T]) -> T:
    """Encodes texts, also a long one that can't be cut, for nobody knows where its library would cut it."""
    return encode() if sum(map(len, texts)) <= BATCH_CHARACTERS else answering(encode)


def portions(texts: Sequence[str], most_characters: int) -> Iterator[list[str]]:
    """The texts in lists of so many characters at most; a longer text is by itself.

    >>> list(portions(["ab", "c", "defg", ""], 3))
    [['ab', 'c'], ['defg'], ['']]
    """
    held: list[str] = []
    size = 0
    for text in texts:
        if held and size + len(text) > most_characters:
            yield held
            held, size = [], 0
        held.append(text)
        size += len(text)
    if held:
        yield held


def missing(library: str) -> TokenizerError:
    """The error for a tokenizer whose library is not installed."""
    return TokenizerError(f"this tokenizer needs the library {library}: pip install 'myna[tokenizers]'")


@contextlib.contextmanager
def no_panic(what: str) -> Iterator[None]:
    """Turns a panic in a Rust library, which is no Exception, into an error of ours."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TextError(f"{what}: its library gave up ({first_line(error)})") from None


class HuggingFaceModel:
    """A tokenizer.json that is not byte-level BPE of a pattern we know, run by `tokenizers`.

    Raises:
        TokenizerError: `tokenizers` is not installed, or can't read it.
    """

    def __init__(self, data: bytes, name: str) -> None:
        try:
            # Here and not above: it is optional, and few tokenizers need it.
            from tokenizers import Tokenizer
        except ImportError:
            raise missing("tokenizers") from None
        try:
            with no_panic(name):
                self._tokenizer = Tokenizer.from_str(data.decode("utf-8"))
        except Exception as error:  # `tokenizers` raises the bare Exception
            raise TokenizerError(
                f"{name} is no tokenizer that the library tokenizers can read: {first_line(error)}"
            ) from None
        self._data, self._name = data, name
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        for token in self._tokenizer.get_added_tokens_decoder().values():
            if not token.special and CONTROL_TOKEN.fullmatch(token.content):
                self._tokenizer.add_special_tokens([token])
        self._tokenizer.encode_special_tokens = True  # its way to say: text that spells one is text
        added = self._tokenizer.get_added_tokens_decoder().items()
        self.special_tokens = {token.content: i for i, token in added if token.special}
        content = parse_json(data)
        self.is_exact = _keeps_all_text(content)
        self.decode_together: Callable[[Sequence[int]], str] | None = None if self.is_exact else self._decode
        model = content["model"]
        unknown = model.get("unk_token")
        self.unknown: int | None = None
        if not self.is_exact:  # a vocabulary with all bytes never needs it
            has_name = isinstance(unknown, str)
            self.unknown = self._tokenizer.token_to_id(unknown) if has_name else model.get("unk_id")

    def __reduce__(self) -> tuple[Any, ...]:
        return HuggingFaceModel, (self._data, self._name)

    def token_table(self) -> list[bytes | None]:
        """The bytes of each id; an estimate where ids don't keep all of the text."""
        spelled = self._tokenizer.get_vocab(with_added_tokens=True)
        table: list[bytes | None] = [None] * (1 + max(spelled.values()))
        byte_level = "ByteLevel" in str(self._tokenizer.decoder)
        for token, i in spelled.items():
            table[i] = _byte_level(token) if byte_level else _piece_bytes(token)
        for i, added in self._tokenizer.get_added_tokens_decoder().items():
            table[i] = added.content.encode("utf-8")  # which is never spelled
        return table

    def to_json(self) -> bytes:
        """The file as it was."""
        return self._data

    def encode(self, text: str) -> list[int]:
        """The ids, without the special tokens that a template would put around them."""
        with no_panic(self._name):
            return _answering([text], lambda: self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_bytes(self, data: bytes) -> list[int]:
        """See `Model.encode_bytes`."""
        return self.encode(_text_of(data, self._name))

    def encode_arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Model.encode_arrays`."""
        rows: list[list[int]] = []
        with no_panic(self._name):
            for batch in portions(texts, BATCH_CHARACTERS):
                rows += _answering(batch, partial(self._ids, batch))
        return flat(rows)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [row.ids for row in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _decode(self, ids: Sequence[int]) -> str:
        """The text, as its own decoder joins it."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class SentencePieceModel:
    """A sentencepiece `.model`, run by `sentencepiece`.

    Attributes:
        pieces: the text of each id.
    Raises:
        TokenizerError: `sentencepiece` is not installed, or can't read it.
    """

    is_exact = False  # it normalizes, and where a space was put or dropped no id tells

    def __init__(self, data: bytes, name: str) -> None:
        try:
            # Here and not above: it is optional, and few tokenizers need it.
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise missing("sentencepiece") from None
        try:
            if not data:  # which the library would take for a model without pieces
                raise ValueError("it is empty")
            self._processor = SentencePieceProcessor(model_proto=data)
            self.pieces = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        except (RuntimeError, OSError, ValueError) as error:
            raise TokenizerError(f"{name} is no sentencepiece model: {first_line(error)}") from None
        self._data, self._name = data, name
        processor = self._processor
        control = [i for i in range(len(self.pieces)) if processor.is_control(i) or processor.is_unknown(i)]
        self.special_tokens = {self.pieces[i]: i for i in control}
        self.unknown: int | None = processor.unk_id()

    @classmethod
    def from_envelope(cls, content: Mapping[str, Any], name: str) -> "SentencePieceModel":
        """The model in a parsed envelope, as `to_json` makes it.

        Raises:
            TokenizerError: it is damaged.
        """
        try:
            data = base64.b64decode(content["model"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise TokenizerError(f"{name} is damaged: its sentencepiece model is not base64") from None
        return cls(data, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceModel, (self._data, self._name)

    def token_table(self) -> list[bytes | None]:
        """The bytes of each piece."""
        return [_piece_bytes(piece) for piece in self.pieces]

    def to_json(self) -> bytes:
        """The model in an envelope: sentencepiece has no tokenizer.json."""
        return json_bytes(
            {"format": SENTENCEPIECE_FORMAT, "model": base64.b64encode(self._data).decode("ascii")}
        )

    def encode(self, text: str) -> list[int]:
        """The ids, without begin and end."""
        return _answering([text], lambda: self._processor.encode(text, out_type=int))

    def encode_bytes(self, data: bytes) -> list[int]:
        """See `Model.encode_bytes`."""
        return self.encode(_text_of(data, self._name))

    def encode_arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Model.encode_arrays`."""
        return flat([self.encode(text) for text in texts])

    def decode_together(self, ids: Sequence[int]) -> str:
        """The text, as the library joins it."""
        return self._processor.decode(list(ids))


def _text_of(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"byte {error.start:,} is no UTF-8, and {name} has ids for text alone; use a byte-level BPE such as gpt2"
        ) from None


def _keeps_all_text(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json's ids always decode to the text they came from: byte-level BPE, nothing before it."""
    model, pre_tokenizer = content["model"], content.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    if (
        not isinstance(steps, list)
        or model.get("type", "BPE") != "BPE"
        or not isinstance(model.get("vocab"), dict)
    ):
        return False
    return (
        not content.get("normalizer")
        and not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix"))
        and [step.get("type") for step in steps].count("ByteLevel") == 1
        and steps[-1].get("type") == "ByteLevel"
        and not steps[-1].get("add_prefix_space", True)
        and all(_only_cuts(step) for step in steps[:-1])
        and (content.get("decoder") or {}).get("type") == "ByteLevel"
        and all(character in model["vocab"] for character in gpt2.CHARACTER_TO_BYTE)
        and all(_is_plain_text(token, model["vocab"]) for token in content.get("added_tokens") or [])
    )


def _is_plain_text(token: Mapping[str, Any], vocab: Mapping[str, int]) -> bool:
    """Whether an added token takes no spaces around it, and the vocabulary spells no other bytes so."""
    content = token["content"]
    takes_spaces = not token.get("special") and (token.get("lstrip") or token.get("rstrip"))
    return not takes_spaces and (content.isascii() or content not in vocab or not gpt2.is_spelled(content))


def _only_cuts(step: Mapping[str, Any]) -> bool:
    """Whether a pre-tokenizer cuts text and drops none of it."""
    kept = step.get("behavior") in ("Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
    return step.get("type") == "Digits" or (step.get("type") in ("Split", "Punctuation") and kept)


def _byte_level(token: str) -> bytes:
    return gpt2.to_bytes(token) if gpt2.is_spelled(token) else token.encode("utf-8")


def _piece_bytes(piece: str) -> bytes:
    if match := BYTE_TOKEN.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("▁", " ").encode("utf-8")
