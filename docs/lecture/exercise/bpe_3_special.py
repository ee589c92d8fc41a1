"""Step 3: special tokens. They are found before the pattern, and only where the caller allows them."""

import bpe_1_basic as basic
import bpe_2_regex as pieces
import regex


def cut_at_special(text: str, names: set[str]) -> list[str]:
    """The text cut around the special tokens: "hi<|end|>you" becomes ["hi", "<|end|>", "you"].

    `names` may be empty. Of two names that begin in the same place, the longer one counts.
    """
    if not names:
        return [text]
    longest_first = sorted(names, key=len, reverse=True)
    expression = ...  # any of the names, each escaped
    return [part for part in regex.split(f"({expression})", text) if part]


def encode(
    text: str, merges: list[basic.Pair], special: dict[str, int], allowed: set[str] = frozenset()
) -> list[int]:
    """The ids of a text. A name in `allowed` becomes its one id; any other name is ordinary text.

    Raises:
        ValueError: a name in `allowed` is no special token.
    """
    unknown = ...
    if unknown:
        raise ValueError(f"no special tokens: {sorted(unknown)}")
    ids: list[int] = []
    for part in cut_at_special(text, allowed):
        ids += ...
    return ids


def decode(ids: list[int], merges: list[basic.Pair], special: dict[str, int]) -> str:
    """The text of some ids, special tokens by name."""
    names = {i: name for name, i in special.items()}
    data = ...
    return data.decode("utf-8", errors="replace")
