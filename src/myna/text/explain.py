"""What a tokenizer did to a text, as data: where each token lies, which character it is a part of, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

from myna.text import bpe
from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Span:
    """One token of a text.

    Attributes:
        id: the token.
        start, end: its bytes in the text's UTF-8.
        data: those bytes.
        of: the character that it is a part of, when it begins or ends inside one; else "".
    """

    id: int
    start: int
    end: int
    data: bytes
    of: str


def spans(tokenizer: Tokenizer, text: str) -> Iterator[Span]:
    """The tokens of a text, in order. Their bytes, joined, are the text's, if no other library normalizes it first.

    >>> for span in spans(Tokenizer.gpt2(), "a 😀"): print(span)
    Span(id=64, start=0, end=1, data=b'a', of='')
    Span(id=30325, start=1, end=5, data=b' \\xf0\\x9f\\x98', of='😀')
    Span(id=222, start=5, end=6, data=b'\\x80', of='😀')
    """
    ids = tokenizer.encode(text)
    tokens = [tokenizer.token_bytes(i) for i in ids]
    data = b"".join(tokens)  # the text, but where another library's normalizer changed it
    at = 0
    for i, token in zip(ids, tokens, strict=True):
        end = at + len(token)
        yield Span(i, at, end, token, _cut_character(data, at, end))
        at = end


def _cut_character(data: bytes, start: int, end: int) -> str:
    """The first character that a border of the span data[start:end] cuts; "" if both fall between characters."""
    for border in (start, end):
        if border < len(data) and data[border] & 0xC0 == 0x80:
            first = border
            while first and data[first] & 0xC0 == 0x80:
                first -= 1
            last = border
            while last < len(data) and data[last] & 0xC0 == 0x80:
                last += 1
            return data[first:last].decode("utf-8", errors="replace")
    return ""


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The pre-tokens of a text: what merges stay inside of.

    Raises:
        TokenizerError: the tokenizer is of another make and does not tell.
    """
    return tokenizer.vocabulary.pattern.pieces(text)


def why(tokenizer: Tokenizer, word: str) -> list[bpe.EncodingState]:
    """The merges of one pre-token, in order.

    Raises:
        TokenizerError: the tokenizer is of another make and does not tell.
    """
    return list(bpe.trace(word.encode("utf-8"), tokenizer.vocabulary.ranks))
