"""Did the training text hold the test? Items that share n words in a row with it.

The rule is GPT-3's: lower case, no punctuation, words between white space, 13 of them in a row. An item's text is its
context with its right ending. One of fewer words than n counts where all of it stands in the training text.

The text is searched in pieces of ids, by several processes, so memory does not grow with it: each piece is decoded,
every word that no item has ends a row, and the rows that are left are looked up. A piece reads on into the next, so a
row of words that crosses their border is found.

Source:
    Brown et al. 2020, arXiv:2005.14165, appendix C: "collisions" of 13 words with the training data.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from myna.cores import usable_cores
from myna.data.split import Dataset, Split
from myna.errors import DataError
from myna.evaluate.hellaswag import Item
from myna.files import sha256_file
from myna.parsing import read_object
from myna.settings import is_whole
from myna.text.tokenizer import Tokenizer

FORMAT = "myna-overlap-1"
WORDS = 13
PIECE_IDS = 1 << 20
BEYOND_IDS = 64  # for each of n words: how far a piece reads on into the next
UNKNOWN = -1  # a word that no item has

_PUNCTUATION = re.compile(r"[^\w\s]|_")


def words_of(text: str) -> list[str]:
    """
    >>> words_of("The dog's well-known _bone_, twice.")
    ['the', 'dogs', 'wellknown', 'bone', 'twice']
    """
    return _PUNCTUATION.sub("", text.lower()).split()


def text_of(item: Item) -> str:
    """What an item says: its context with its right ending."""
    return item.context + item.completions[item.label]


@dataclass(frozen=True)
class Searched:
    """The rows of words that are looked for.

    Attributes:
        numbers: of each word that an item has.
        owners: the items that have a row of words; by the row's length, and then by its numbers as bytes.
    """

    numbers: Mapping[str, int]
    owners: Mapping[int, Mapping[bytes, tuple[int, ...]]]

    @classmethod
    def of(cls, texts: Sequence[str], n: int) -> "Searched":
        """
        Args:
            n: words in a row.
        """
        numbers: dict[str, int] = {}
        owners: dict[int, dict[bytes, tuple[int, ...]]] = {}
        for item, text in enumerate(texts):
            row = [numbers.setdefault(word, len(numbers)) for word in words_of(text)]
            length = min(n, len(row))
            for start in range(len(row) - length + 1 if length else 0):
                key = _key(row[start : start + length])
                before = owners.setdefault(length, {}).get(key, ())
                if item not in before:
                    owners[length][key] = (*before, item)
        return cls(numbers, owners)

    def found_in(self, words: Sequence[str]) -> set[int]:
        """The items that a text of these words touches."""
        known = np.fromiter((self.numbers.get(word, UNKNOWN) for word in words), dtype=np.int32)
        found: set[int] = set()
        for length, owners in self.owners.items():
            if len(known) < length:
                continue
            unknown = np.concatenate([[0], np.cumsum(known == UNKNOWN)])
            starts = np.flatnonzero(unknown[length:] == unknown[:-length])
            for start in starts.tolist():
                found.update(owners.get(known[start : start + length].tobytes(), ()))
        return found


def _key(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, dtype=np.int32).tobytes()


def touched_items(
    split: Split,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    n: int = WORDS,
    workers: int | None = None,
    on_ids: Callable[[int], None] | None = None,
) -> list[int]:
    """The numbers of the texts that share `n` words in a row with a split's documents, ascending.

    Args:
        workers: processes; None for one per core. The result is the same for any number.
        on_ids: called with the number of ids searched since the last call.
    """
    searched = Searched.of(texts, n)
    starts = range(0, split.n_tokens, PIECE_IDS)
    search = partial(_search, split, tokenizer, searched, n)
    found: set[int] = set()
    workers = min(workers or usable_cores(), max(1, len(starts)))
    for start, items in zip(starts, _mapped(search, starts, workers), strict=True):
        found |= items
        if on_ids:
            on_ids(min(PIECE_IDS, split.n_tokens - start))
    return sorted(found)


def _mapped(search: Callable[[int], set[int]], starts: Sequence[int], workers: int) -> Iterator[set[int]]:
    if workers == 1:
        yield from map(search, starts)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(search, starts)


def _search(split: Split, tokenizer: Tokenizer, searched: Searched, n: int, start: int) -> set[int]:
    """The items that a piece touches. Documents are apart: no row of words goes from one into the next."""
    count = min(PIECE_IDS + BEYOND_IDS * n, split.n_tokens - start)
    ids = split.read(start, count)
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eot))
    found: set[int] = set()
    for number, document in enumerate(documents):
        text = tokenizer.decode(document[document != tokenizer.eot].tolist(), errors="replace")
        words = words_of(text)
        # A word at the border may be a part of one. The piece before has the first whole, the next one the last.
        if start and number == 0:
            words = words[1:]
        if start + count < split.n_tokens and number == len(documents) - 1:
            words = words[:-1]
        found |= searched.found_in(words)
    return found


def overlap(
    dataset: Dataset,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    items_file: Path,
    *,
    n: int = WORDS,
    workers: int | None = None,
    on_ids: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """What `myna data overlap` writes: which items the training text touches, and of what that is true.

    Raises:
        DataError: a shard is damaged.
    """
    touched = touched_items(
        dataset.train, tokenizer, [text_of(item) for item in items], n=n, workers=workers, on_ids=on_ids
    )
    return {
        "format": FORMAT,
        "words": n,
        "dataset": {
            "path": str(dataset.path),
            "identity": dataset.identity,
            "tokens": dataset.train.n_tokens,
        },
        "items": {"file": items_file.name, "sha256": sha256_file(items_file), "count": len(items)},
        "touched": touched,
    }


def read_touched(path: Path, items_file: Path, count: int) -> list[int]:
    """The numbers of the touched items, from 0.

    Raises:
        DataError: it is no such file, or of other items.
    """
    make = "make it with `myna data overlap`"
    stored = read_object(path, DataError, make)
    items, touched = stored.get("items"), stored.get("touched")
    if stored.get("format") != FORMAT or not isinstance(items, dict) or not isinstance(touched, list):
        raise DataError(f"{path} does not say which items a text touches; {make}")
    if items.get("sha256") != sha256_file(items_file):
        raise DataError(f"{path} is about {items.get('file')}, another file than {items_file}; {make}")
    if not all(is_whole(number) and 0 <= number < count for number in touched):
        raise DataError(f"{path} names items that {items_file} does not have; {make}")
    return [int(number) for number in touched]
