"""What callers give a Tokenizer, checked at the door: texts, ids, names of special tokens."""

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from myna.errors import TextError, TokenizerError

# Names of special tokens that a text may spell, or "all" of them.
Allowed = Collection[str] | Literal["all"]


def special_split(
    special_tokens: Mapping[str, int], allowed: Allowed, name: str
) -> Callable[[str], list[str]] | None:
    """Cuts a text around the special tokens that it may spell; None where there is none to look for.

    Raises:
        TokenizerError: an allowed name is no special token.
    """
    if allowed == "all":
        allowed = set(special_tokens)
    if isinstance(allowed, str):
        raise TokenizerError(f'allowed_special takes a set of names, {{{allowed!r}}}, or "all"')
    for one in allowed:
        if one not in special_tokens:
            known = ", ".join(special_tokens) or "none"
            raise TokenizerError(f"{one!r} is no special token of {name}; it has: {known}")
    longest_first = sorted(allowed, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")").split if allowed else None


def many(given: Any, what: str) -> Any:
    """What was given, if it is many things and not one text."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TextError(f"expected {what}, and got {type(given).__name__}; give a list of them, as in [text]")
    return given


def id_list(ids: Any) -> list[int]:
    """Ids as a list of ints."""
    found = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise TextError(f"expected ids, and got {type(ids).__name__}; give a list of ints, as in [15496]")
    return list(found)


def text_of(data: bytes, errors: str) -> str:
    try:
        return data.decode("utf-8", errors=errors)
    except UnicodeDecodeError as error:
        raise TextError(
            f'byte {error.start:,} of what the ids stand for is no UTF-8; use decode_bytes, or errors="replace"'
        ) from None
    except LookupError:
        raise TextError(f"errors takes replace, ignore or strict, not {errors!r}") from None


def warn_of_loss(spec: str) -> None:
    """Says, once, that a tokenizer doesn't keep all of a text."""
    warnings.warn(
        f"the tokenizer {spec} changes text: its ids don't always decode to the text they came from; byte-level BPE, "
        "such as gpt2, keeps every byte",
        stacklevel=3,
    )
