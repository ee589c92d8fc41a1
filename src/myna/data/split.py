"""An open dataset, of whatever format: its splits, each a row of files read as one stream of ids.

Ids are read with `pread`, not through a map: random windows of a mapped 20 GB dataset pull it into the process page by
page, a map of a file that gets cut dies of SIGBUS, and a read costs a few microseconds.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import DataError
from myna.files import json_bytes, sha256_bytes
from myna.paths import cannot_use

SPLITS = ("train", "val")
SCORED_DTYPE = np.dtype("u1")
OPEN_FILES = 64
SCAN_IDS = 1 << 22


@dataclass(frozen=True)
class Shard:
    """One file of ids: where they begin in it, how many, of which type, and its published hash."""

    path: Path
    tokens: int
    offset: int
    dtype: np.dtype
    sha256: str | None = None

    def check_size(self) -> None:
        """Raises DataError unless the file is there and has room for exactly its ids."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError as error:
            raise DataError(f"{self.path} is not there; put it back, or prepare the dataset again") from error
        except OSError as error:
            raise DataError(cannot_use(error, self.path)) from error
        except ValueError as error:  # a lone surrogate or a NUL, which dataset.json may spell
            raise DataError(f"{str(self.path)!r} is no name of a file; prepare the dataset again") from error
        expected = self.offset + self.tokens * self.dtype.itemsize
        if size != expected:
            raise DataError(
                f"{self.path} has {size:,} bytes, expected {expected:,}; it is damaged, prepare it again"
            )


class Split:
    """The ids of `train` or `val`: the shards, read as one stream.

    Args:
        place: what messages call it.
        documents, n_bytes: as dataset.json states them; counted when asked for if None.
        eot, id_bytes: what a split of another project's files needs for counting, see `n_documents` and `n_bytes`.
        scored: of conversations: 1 for each id that is scored, 0 for the others, as a split of its own.
    """

    def __init__(
        self,
        place: str,
        shards: Sequence[Shard],
        vocab_size: int,
        documents: int | None = None,
        n_bytes: int | None = None,
        eot: int | None = None,
        id_bytes: np.ndarray | None = None,
        scored: "Split | None" = None,
    ) -> None:
        self.scored = scored
        self.place = place
        self.shards = list(shards)
        self.vocab_size = vocab_size
        self.n_tokens = sum(shard.tokens for shard in shards)
        self._documents, self._bytes, self._eot, self._id_bytes = documents, n_bytes, eot, id_bytes
        self._who_says = (
            "name the tokenizer it was made with"
            if eot is not None
            else "dataset.json says so in vocab_size: put the right number back, or prepare the dataset again"
        )
        self._ends = np.cumsum([shard.tokens for shard in shards], dtype=np.int64)
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the shards itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_descriptors", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._descriptors, self._lock = OrderedDict(), threading.Lock()

    @cached_property
    def n_documents(self) -> int:
        """How many documents there are; in other projects' files, how many end-of-text ids (one pass)."""
        if self._documents is not None:
            return self._documents
        return sum(int((ids == self._eot).sum()) for ids in self.scan())

    @property
    def stated_bytes(self) -> int | None:
        """UTF-8 bytes of the text as dataset.json states them; None in other projects' files."""
        return self._bytes

    @cached_property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the text; in other projects' files, of the text that its ids stand for (one pass).

        Raises:
            DataError: the tokenizer doesn't keep all of a text, so that its ids don't say how many bytes it had.
        """
        if self._bytes is not None:
            return self._bytes
        if self._id_bytes is None:
            raise DataError(
                f"{self.place}: its tokenizer changes text, so its ids don't say how many bytes the text had; prepare "
                "the text itself with `myna prepare`"
            )
        return sum(int(self._id_bytes[ids].sum()) for ids in self.scan())

    def scan(self) -> Iterator[np.ndarray]:
        """Yields the whole stream in pieces of at most `SCAN_IDS` ids."""
        for start in range(0, self.n_tokens, SCAN_IDS):
            yield self.read(start, min(SCAN_IDS, self.n_tokens - start))

    def read(self, start: int, count: int, ring: bool = False) -> np.ndarray:
        """Ids start to start + count - 1 of the stream, across shard borders.

        Args:
            ring: after the last id comes the first.
        Returns:
            (count,) int64.
        Raises:
            IndexError: the stretch is outside the stream.
            DataError: a shard was cut since it was opened, or holds an id outside the vocabulary.
        """
        if start < 0 or count < 0 or (start + count > self.n_tokens and not (ring and self.n_tokens)):
            raise IndexError(f"{self.place} has {self.n_tokens} ids; {count} from {start} are not there")
        ids = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            at = (start + filled) % self.n_tokens
            number = int(np.searchsorted(self._ends, at, side="right"))
            shard = self.shards[number]
            within = at - (int(self._ends[number]) - shard.tokens)
            take = min(count - filled, shard.tokens - within)
            ids[filled : filled + take] = self._read_shard(number, within, take)
            filled += take
        if count and (int(ids.max()) >= self.vocab_size or int(ids.min()) < 0):
            wrong = int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())
            raise DataError(
                f"{self.place} holds id {wrong} near position {start:,}, outside the vocabulary of "
                f"{self.vocab_size:,}; {self._who_says}"
            )
        return ids

    def _read_shard(self, number: int, within: int, count: int) -> np.ndarray:
        shard = self.shards[number]
        size = count * shard.dtype.itemsize
        with self._lock:
            data = os.pread(self._open(number), size, shard.offset + within * shard.dtype.itemsize)
        if len(data) != size:
            raise DataError(
                f"{shard.path} ends before its {shard.tokens:,} ids; it is damaged, prepare it again"
            )
        return np.frombuffer(data, dtype=shard.dtype)

    def _open(self, number: int) -> int:
        """The shard's file descriptor. The least recently used is closed: a large dataset has more shards than that."""
        if number in self._descriptors:
            self._descriptors.move_to_end(number)
            return self._descriptors[number]
        if len(self._descriptors) >= OPEN_FILES:
            os.close(self._descriptors.popitem(last=False)[1])
        path = self.shards[number].path
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(cannot_use(error, path)) from error
        self._descriptors[number] = descriptor
        return descriptor

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


@dataclass(frozen=True)
class Dataset:
    """An open dataset.

    Attributes:
        path: its folder.
        info: dataset.json, or what other projects' files tell, in its shape.
        tokenizer_sha256: of its tokenizer.json.
        tokenizer_path: the folder's tokenizer.json; None for other projects' files.
    """

    path: Path
    info: Mapping[str, Any]
    vocab_size: int
    tokenizer_sha256: str
    tokenizer_path: Path | None
    train: Split
    val: Split

    @property
    def has_conversations(self) -> bool:
        """Whether its documents are conversations, of which some ids are scored."""
        return self.train.scored is not None

    def streams(self, names: Collection[str] = SPLITS) -> list[Split]:
        """All that files were written for: both splits, or those of the names; and of conversations their masks."""
        splits = [split for name, split in (("train", self.train), ("val", self.val)) if name in names]
        return splits + [split.scored for split in splits if split.scored is not None]

    @property
    def identity(self) -> str:
        """What identifies it: its tokenizer, and the hash (or, in a foreign format, the size) of each shard."""
        shards = [[shard.sha256 or shard.tokens for shard in split.shards] for split in self.streams()]
        return sha256_bytes(json_bytes([self.tokenizer_sha256, *shards]))

    @property
    def corpus(self) -> list[str] | None:
        """The corpora that it was prepared from, by the names that were given; None where nobody knows."""
        source = self.info.get("source")
        return source.get("corpus") if isinstance(source, dict) else None
