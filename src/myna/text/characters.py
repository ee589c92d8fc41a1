"""Characters that need care: those that are none, and those too new for engines to agree on."""

import functools
import re

from myna.errors import TextError

# Letters, digits and spaces that entered Unicode after version 14, with room where the next ones are expected: each
# engine is built on one version of the tables, and they differ here. tests/parity/test_tokenizer_engines.py asks both
# engines about every code point.
DISPUTED_RANGES = (
    "558 58b-58c 88f c5c cdc 1c89-1c8a 208f 209d-209f a7cb-a7cf a7d2-a7d4 a7da-a7dd a7e2 a7f1 ab6c-ab6d 105c0-105f3 "
    "107bb-107bf 10940-10959 10d40-10d85 10ec2-10eee 1123f-11240 11380-113e2 116d0-116e3 11b0a 11bc0-11bf9 11db0-11de9 "
    "11df1 11f02-11f59 1246f 12475-1247f 12550-12686 1342f 13441-13446 13460-143fa 16100-16139 16d40-16d79 16ea0-16ed3 "
    "16ff2-16ff6 187f8-187ff 18cd6-18cda 18cff 18d09-18df2 18e00-191d2 1b123-1b168 1ccf0-1ccf9 1d2c0-1d2d3 1d6a6 "
    "1df1f-1dfff 1e030-1e06d 1e4d0-1e4f9 1e5d0-1e5fa 1e6c0-1e6ff 2b739-2b73f 2b81e 2cea2-2cead 2ebf0-2ee5d 31350-33479 "
    "3d000-3fc3f"
)


def check_text(text: object) -> None:
    """Refuses what is no Unicode text.

    Raises:
        TextError: not a str, or a lone surrogate in it.
    """
    if not isinstance(text, str):
        raise TextError(
            f"a tokenizer takes text as str, not {type(text).__name__}; decode or convert it first"
        )
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"character {error.start:,} of the text is a lone surrogate (U+{ord(text[error.start]):04X}), which is no "
            "character; read the text as UTF-8 with errors='replace', or remove it"
        ) from None


@functools.cache
def disputed() -> tuple[bytes, dict[int, list[bytes]], "re.Pattern[str]"]:
    """What to look for in UTF-8 to find a character on which engines disagree, the quickest first.

    Returns:
        the bytes that begin none of them;
        for each other byte, the characters that begin with it, or their first two bytes where they have four;
        a pattern that matches the ones of four bytes.
    """
    ends = (part.split("-") for part in DISPUTED_RANGES.split())
    ranges = [(int(end[0], 16), int(end[-1], 16)) for end in ends]
    spelled = [chr(code).encode("utf-8") for first, last in ranges for code in range(first, last + 1)]
    parts = sorted({character[:2] if len(character) == 4 else character for character in spelled})
    by_first = {part[0]: [other for other in parts if other[0] == part[0]] for part in parts}
    astral = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges if first > 0xFFFF)
    return bytes(byte for byte in range(256) if byte not in by_first), by_first, re.compile(f"[{astral}]")


def is_disputed(text: str) -> bool:
    """Whether engines may split a text differently, because it holds characters that are new to Unicode."""
    if text.isascii():
        return False
    data = text.encode("utf-8")
    ordinary, by_first, astral = disputed()
    for first in set(data.translate(None, ordinary)):
        if any(part in data for part in by_first[first]) and (first != 0xF0 or astral.search(text)):
            return True
    return False
