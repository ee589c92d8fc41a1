"""Decoding ids as they come, without ever printing half a character."""

import codecs
from collections.abc import Callable, Iterable


class StreamDecoder:
    """Turns ids into text piece by piece: a character is held back until all its bytes are there.

    The pieces, joined with what `finish` returns, are `decode` of all the ids.

    Args:
        token_bytes: the bytes of one id.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is complete now that these ids have come too."""
        return self._utf8.decode(b"".join(map(self._token_bytes, ids)))

    def finish(self) -> str:
        """What was held back: U+FFFD when the ids ended inside a character. The decoder can then be used afresh."""
        return self._utf8.decode(b"", final=True)
