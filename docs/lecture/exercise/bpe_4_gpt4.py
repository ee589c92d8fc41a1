"""Step 4: GPT-4's tokenizer, from the file that OpenAI publishes: its pattern, and ranks instead of pairs.

A line of a .tiktoken file is a token's bytes in base64, a space, and its rank, which is its id. So the file names no
pairs: any two neighbours whose joined bytes are a token may merge, lowest rank first. Bytes have ranks of their own,
which need not be 0 to 255 in order.
"""

import base64
from itertools import pairwise
from pathlib import Path

import regex

# GPT-2's with five changes: contractions in any case, any one character before letters (but no letter, digit or line
# break), digits in threes without a space, line breaks at the end of signs, and white space that ends with a line
# break.
PATTERN = regex.compile(
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|..."  # an optional character, no line break, letter or digit (a space may be one), and letters
    r"|..."  # one to three digits
    r"|..."  # an optional space, other signs, and the line breaks after them
    r"|\s++\Z|\s*[\r\n]|\s+(?!\S)|\s"
)


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """token -> rank, from a .tiktoken file."""
    ranks: dict[bytes, int] = {}
    for line in Path(path).read_text("ascii").splitlines():
        token, rank = line.split()
        ...
    return ranks


def encode_piece(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """The ids of one pre-token: the leftmost pair with the lowest rank merges, until no pair has a rank."""
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 1:
        joined = [ranks.get(left + right) for left, right in pairwise(parts)]
        known = [rank for rank in joined if rank is not None]
        if not known:
            break
        i = ...  # where the lowest rank stands
        ...  # join the parts i and i + 1
        break  # remove this line
    return [ranks[part] for part in parts]


def encode(text: str, ranks: dict[bytes, int], pattern: regex.Pattern[str] = PATTERN) -> list[int]:
    """The ids of a text."""
    return ...


def decode(ids: list[int], ranks: dict[bytes, int]) -> str:
    """The text of some ids."""
    tokens = {rank: token for token, rank in ranks.items()}
    return b"".join(tokens[i] for i in ids).decode("utf-8", errors="replace")
