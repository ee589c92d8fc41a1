"""The bytes of every id of a vocabulary, special tokens included: what decoding looks up."""

import contextlib
import functools
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

from myna.errors import TokenizerError
from myna.text.model import Model
from myna.text.vocabulary import find_end_of_text

# `join` keeps a record of 80 bytes per item; many at once would need more memory than the text.
JOIN_IDS = 1 << 16


class TokenTable:
    """The bytes of each id; for a special token its name; None for an id that stands for nothing."""

    def __init__(self, model: Model, name: str) -> None:
        self._specials, self._unknown, self._name = model.special_tokens, model.unknown, name
        self._bytes_of = model.token_table()
        self._bytes_of += [None] * (max(self._specials.values(), default=-1) + 1 - len(self._bytes_of))
        for special, i in self._specials.items():
            self._bytes_of[i] = special.encode("utf-8")

    def __len__(self) -> int:
        return len(self._bytes_of)

    @functools.cached_property
    def _whole(self) -> list[bytes]:
        """The same without a None, or empty if there is one: decoding needs no check per id."""
        table = [token for token in self._bytes_of if token is not None]
        return table if len(table) == len(self) else []

    @functools.cached_property
    def ids(self) -> dict[bytes, int]:
        """The id of each token's bytes, without special tokens."""
        specials = set(self._specials.values())
        return {token: i for i, token in enumerate(self._bytes_of) if token and i not in specials}

    def one(self, token: int) -> bytes:
        """The bytes of one id.

        Raises:
            TokenizerError: it is no id of the vocabulary.
        """
        is_id = isinstance(token, SupportsIndex) and 0 <= token.__index__() < len(self)
        found = self._bytes_of[token] if is_id else None
        if found is None:
            raise TokenizerError(
                f"id {token!r} is outside the vocabulary of {self._name} ({len(self):,} ids)"
            )
        return found

    def join(self, ids: Sequence[int]) -> bytes:
        """The bytes of ids, joined.

        Raises:
            TokenizerError: one is no id of the vocabulary.
        """
        with contextlib.suppress(TypeError):  # what is no int is named below
            if self._whole and ids and min(ids) >= 0 and max(ids) < len(self):
                parts = (ids[i : i + JOIN_IDS] for i in range(0, len(ids), JOIN_IDS))
                return b"".join(b"".join(map(self._whole.__getitem__, part)) for part in parts)
        return b"".join(map(self.one, ids))

    def lengths(self) -> np.ndarray:
        """How many bytes each id stands for: (len(self),) int64; 0 for special tokens and unused ids."""
        found = np.array([len(token or b"") for token in self._bytes_of], dtype=np.int64)
        found[list(self._specials.values())] = 0
        return found

    def is_text(self) -> np.ndarray:
        """Which ids stand for text: (len(self),) bool. Of the special tokens only [UNK] does, unless it ends a text."""
        found = np.array([token is not None for token in self._bytes_of])
        eot = find_end_of_text(self._specials)
        found[[i for name, i in self._specials.items() if i != self._unknown or name == eot]] = False
        return found
