"""Decoding ids as they come, without ever printing half a character."""

import codecs
from collections.abc import Callable, Iterable, Sequence


class StreamDecoder:
    """Turns ids into text piece by piece: a character is held back until all its bytes are there.

    The pieces, joined with what `finish` returns, are `decode` of all the ids.

    Args:
        decode_bytes: the bytes that ids stand for; those of each id depend on no other.
    """

    def __init__(self, decode_bytes: Callable[[Iterable[int]], bytes]) -> None:
        self._decode_bytes = decode_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is complete now that these ids have come too."""
        return self._utf8.decode(self._decode_bytes(ids))

    def finish(self) -> str:
        """What was held back: U+FFFD when the ids ended inside a character. The decoder can then be used afresh."""
        return self._utf8.decode(b"", final=True)


class ContextStreamDecoder:
    """The same for vocabularies in which an id's text depends on its neighbours, such as a space that is dropped when
    it comes first: a few ids before the new ones are decoded again with them, and what they add is the new text.

    Args:
        decode: the text that ids stand for.
    """

    KEPT_IDS = 8

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._shown: list[int] = []
        self._held: list[int] = []

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is complete now that these ids have come too."""
        self._held += ids
        return "" if self._decode(self._shown + self._held).endswith("\ufffd") else self.finish()

    def finish(self) -> str:
        """What was held back, complete or not."""
        text = self._decode(self._shown + self._held)[len(self._decode(self._shown)) :]
        self._shown = (self._shown + self._held)[-self.KEPT_IDS :]
        self._held = []
        return text


class CharacterOffsets:
    """Of tokens as they come: their text, and the number of the character in which each begins.

    Args:
        first: the number of the first character.
    """

    def __init__(self, first: int = 0) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = first

    def feed(self, token: bytes) -> tuple[str, int]:
        """The text that is complete now, and the token's place."""
        first = self._utf8.decode(token[:1])
        # The first byte belongs to a character that is not whole yet, or to the last one that is.
        offset = self._length + len(first) - (bool(token) and not self._utf8.getstate()[0])
        text = first + self._utf8.decode(token[1:])
        self._length += len(text)
        return text, offset

    def finish(self) -> str:
        """What was held back; see `StreamDecoder.finish`."""
        return self._utf8.decode(b"", final=True)


def with_offsets(tokens: Iterable[bytes]) -> tuple[str, list[int]]:
    """The text of tokens, and for each the number of the character in which it begins.

    >>> with_offsets([b"a", bytes([0xC3]), bytes([0xA9, 0x62])])
    ('aéb', [0, 1, 1])
    """
    offsets = CharacterOffsets()
    found = [offsets.feed(token) for token in tokens]
    return "".join(text for text, _ in found) + offsets.finish(), [offset for _, offset in found]
