"""Step 2: a pattern cuts the text first, and no merge crosses a cut.

Use the package `regex`: Python's own `re` does not know \\p{L} (any letter) and \\p{N} (any digit).
"""

from collections import Counter

import bpe_1_basic as basic
import regex

# GPT-2's: 's 't 're 've 'm 'll 'd, then an optional space and letters, or digits, or other signs, then white space.
PATTERN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d"
    r"| ?\p{L}+"
    r"|..."  # digits
    r"|..."  # other signs
    r"|..."  # white space; its last space belongs to the word after it
)


def split(text: str, pattern: regex.Pattern[str] = PATTERN) -> list[str]:
    """The pieces (pre-tokens) of a text; joined, they are the text."""
    return pattern.findall(text)


def train(text: str, n_merges: int, pattern: regex.Pattern[str] = PATTERN) -> list[basic.Pair]:
    """The merges of a text. Pairs are counted inside the pieces, and added up over all pieces."""
    pieces = [list(piece.encode("utf-8")) for piece in split(text, pattern)]
    merges: list[basic.Pair] = []
    for step in range(n_merges):
        counts: Counter[basic.Pair] = Counter()
        for ids in pieces:
            ...
        pair = basic.most_frequent(counts)
        pieces = ...
        merges.append(pair)
    return merges


def encode(text: str, merges: list[basic.Pair], pattern: regex.Pattern[str] = PATTERN) -> list[int]:
    """The ids of a text: each piece is encoded for itself."""
    return ...


def decode(ids: list[int], merges: list[basic.Pair]) -> str:
    """The text of some ids. Bytes that are no UTF-8 become U+FFFD, the sign for "unknown character"."""
    return basic.decode(ids, merges).decode("utf-8", errors="replace")
