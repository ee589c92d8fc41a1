"""What runs under a Tokenizer: a rank table of ours, or another library's tokenizer."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np


class Model(Protocol):
    """Turns text that is encodable as UTF-8 into ids. Text that spells a special token is text.

    Attributes:
        special_tokens: name -> id.
        is_exact: whether ids always decode to the bytes they came from, so that each has bytes of its own.
        unknown: the id of text that the vocabulary can't say, such as [UNK]; None where it can say all.
    """

    special_tokens: dict[str, int]
    is_exact: bool
    unknown: int | None

    @property
    def decode_together(self) -> Callable[[Sequence[int]], str] | None:
        """The library's own way to join ids, if the text of an id depends on its neighbours.

        None if each id has bytes of its own. The text of ids is then their bytes in `token_table`, joined.
        """

    def token_table(self) -> list[bytes | None]:
        """The bytes of each ordinary id, in a list of the caller's own; None for an id that stands for nothing."""

    def to_json(self) -> bytes:
        """The bytes of a tokenizer.json that is read back as the same model."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of bytes, which may be no UTF-8.

        Raises:
            TextError: they are none, and this vocabulary can only say text.
        """

    def encode_arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts in one flat array, and how many each text has.

        Returns:
            ids     (N,) an unsigned integer type
            lengths (len(texts),) int64, with sum N
        """


def flat(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array, and the length of each row."""
    lengths = lengths_of(rows)
    return np.fromiter((i for row in rows for i in row), np.uint32, int(lengths.sum())), lengths


def lengths_of(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """The length of each row: (len(rows),) int64."""
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
