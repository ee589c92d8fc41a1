"""The shard format: open a dataset, hold it to its hashes, read any stretch of its stream of ids.

    DIR/dataset.json         what was made, from what, and the SHA-256 of each file
    DIR/tokenizer.json       what turns the ids back into text
    DIR/train_000000.npy     one-dimensional little-endian uint16 (uint32 for a large vocabulary)
    DIR/val_000000.npy

A split's shards are one stream; each document in it begins with the end-of-text id. Ids are read with `pread`, not
through a map: random windows of a mapped 20 GB dataset pull it into the process page by page, a map of a file that
gets cut dies of SIGBUS, and a read costs a few microseconds.
"""

import contextlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from myna.data.verify import hash_files
from myna.errors import DataError
from myna.files import sha256_file

if TYPE_CHECKING:
    from myna.text.tokenizer import Tokenizer

FORMAT = "myna-shards-1"
SPLITS = ("train", "val")
NPY_HEADER_BYTES = 128
OPEN_FILES = 64
SCAN_IDS = 1 << 22


def id_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned little-endian type that holds every id: uint16 up to 65,536 of them, else uint32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def npy_header(dtype: np.dtype, tokens: int) -> bytes:
    """The header of a one-dimensional .npy file, always 128 bytes, so that ids can be written before it.

    Ours rather than NumPy's, whose padding differs between versions: the same ids must give the same bytes.
    """
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({tokens},), }}"
    return (
        b"\x93NUMPY\x01\x00"
        + (NPY_HEADER_BYTES - 10).to_bytes(2, "little")
        + f"{text:<117}\n".encode("ascii")
    )


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
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}; prepare the dataset again") from error
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
        eot, id_bytes: what a foreign split needs for counting, see `n_documents` and `n_bytes`.
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
    ) -> None:
        self.place = place
        self.shards = list(shards)
        self.vocab_size = vocab_size
        self.n_tokens = sum(shard.tokens for shard in shards)
        self._documents, self._bytes, self._eot, self._id_bytes = documents, n_bytes, eot, id_bytes
        self._ends = np.cumsum([shard.tokens for shard in shards], dtype=np.int64)
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def n_documents(self) -> int:
        """How many documents there are; for a foreign split, how many end-of-text ids (one pass)."""
        if self._documents is not None:
            return self._documents
        return sum(int((ids == self._eot).sum()) for ids in self.scan())

    @cached_property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the text; for a foreign split, of the text that its ids stand for (one pass)."""
        if self._bytes is not None:
            return self._bytes
        assert self._id_bytes is not None
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
                f"{self.vocab_size:,}; name the tokenizer it was made with"
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
            raise DataError(f"{path}: {error.strerror}; prepare the dataset again") from error
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
        info: dataset.json, or for a foreign format what could be told in its shape.
        tokenizer_sha256: of its tokenizer.json.
        tokenizer_path: the folder's tokenizer.json; None in a foreign format.
    """

    path: Path
    info: Mapping[str, Any]
    vocab_size: int
    tokenizer_sha256: str
    tokenizer_path: Path | None
    train: Split
    val: Split


def open_dataset(path: Path | str, verify: bool = True, tokenizer: "Tokenizer | None" = None) -> Dataset:
    """Opens a folder of shards: ours, or build-nanogpt's, llm.c's and nanoGPT's as they are.

    Args:
        verify: hash every file and compare, in parallel. What was verified before and did not change since
            (size, times, inode) is not read again.
        tokenizer: what the dataset must have been made with. A foreign format cannot say, so it is needed there.
    Raises:
        DataError: no dataset, a damaged one, or one made with another tokenizer.
    """
    path = Path(path)
    if not (path / "dataset.json").is_file():
        from myna.data.foreign import open_foreign

        return open_foreign(path, tokenizer)
    dataset = _read_ours(path)
    if tokenizer is not None and tokenizer.sha256 != dataset.tokenizer_sha256:
        raise DataError(
            f"{path} was made with another tokenizer than {tokenizer.name}; "
            "use the dataset's own (--tokenizer from-data) or prepare it again"
        )
    shards = [*dataset.train.shards, *dataset.val.shards]
    for shard in shards:
        shard.check_size()
    if verify:
        verify_shards(shards)
    return dataset


def verify_shards(shards: Sequence[Shard], fresh: bool = False) -> None:
    """Hashes shards and compares with what dataset.json states. `fresh` reads all again, whatever is remembered.

    Raises:
        DataError: a shard is not what was prepared.
    """
    found = hash_files([shard.path for shard in shards if shard.sha256], fresh=fresh)
    for shard in shards:
        if shard.sha256 and found[shard.path] != shard.sha256:
            raise DataError(
                f"{shard.path} is not the file that was prepared (its SHA-256 differs from dataset.json); "
                "remove the dataset and prepare it again"
            )


def _read_ours(path: Path) -> Dataset:
    """A dataset.json and what it names, checked for form; shard hashes are not checked here."""
    place = path / "dataset.json"
    try:
        info = json.loads(place.read_bytes())
        if info["format"] != FORMAT:
            raise DataError(
                f"{place} has format {info['format']!r}; this version reads {FORMAT!r}, prepare it again"
            )
        vocab_size, tokenizer_sha256 = int(info["vocab_size"]), str(info["tokenizer"])
        splits = {name: _split_of(path, name, info, vocab_size) for name in SPLITS}
        tokenizer_path = path / "tokenizer.json"
        if sha256_file(tokenizer_path) != tokenizer_sha256:
            raise DataError(f"{tokenizer_path} is not the tokenizer that made this dataset; prepare it again")
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; prepare the dataset again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} is damaged ({error!r}); prepare the dataset again") from error
    return Dataset(path, info, vocab_size, tokenizer_sha256, tokenizer_path, splits["train"], splits["val"])


def _split_of(path: Path, name: str, info: Mapping[str, Any], vocab_size: int) -> Split:
    dtype = np.dtype(info["dtype"]).newbyteorder("<")
    if dtype != id_dtype(vocab_size):
        raise ValueError(f"dtype {info['dtype']} for a vocabulary of {vocab_size}")
    about = info[name]
    shards = [
        Shard(path / Path(s["file"]).name, int(s["tokens"]), NPY_HEADER_BYTES, dtype, str(s["sha256"]))
        for s in about["shards"]
    ]
    split = Split(f"{path} ({name})", shards, vocab_size, int(about["documents"]), int(about["bytes"]))
    if split.n_tokens != int(about["tokens"]):
        raise ValueError(f"{name} has {about['tokens']} tokens, its shards {split.n_tokens}")
    return split
