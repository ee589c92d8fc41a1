"""Ids to shards: one split's stream, cut into files of a fixed number of ids, in a way that survives being killed.

`state()` says what is on the disk; a writer that is given it cuts off whatever was written later and goes on.
"""

import hashlib
import os
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from myna.data.shards import NPY_HEADER_BYTES, npy_header
from myna.data.split import Shard
from myna.errors import DataError, UsageError
from myna.files import sha256_file

COPY_BYTES = 4 << 20


def require_shard_tokens(shard_tokens: int) -> None:
    """Raises UsageError for a size that no shard can have."""
    if shard_tokens < 1:
        raise UsageError(f"--shard-tokens is {shard_tokens}; a shard needs at least 1 token")


class ShardWriter:
    """Writes FOLDER/{split}_000000.npy, ...

    Args:
        stream: "train" or "val"; with ".scored" at its end, the mask of those ids, in {split}_000000.scored.npy.
        shard_tokens: ids a file, but for the last.
        state: of an earlier writer, to go on from it; {} to begin.
    """

    def __init__(
        self, folder: Path, stream: str, dtype: np.dtype, shard_tokens: int, state: dict[str, Any]
    ) -> None:
        self._folder, self._dtype, self._shard_tokens = folder, dtype, shard_tokens
        self._split, _, kind = stream.partition(".")
        self._suffix = f".{kind}.npy" if kind else ".npy"
        self.shards: list[dict[str, Any]] = list(state.get("shards", []))
        self._open_tokens = int(state.get("open_tokens", 0))
        self._file: BinaryIO | None = None
        for path in folder.iterdir():
            if not re.fullmatch(rf"{self._split}_\d+{re.escape(self._suffix)}", path.name):
                continue
            if path.name > self._path().name or (path == self._path() and not self._open_tokens):
                path.unlink()
        if self._open_tokens:
            self._file = open(self._path(), "r+b")  # noqa: SIM115
            expected = NPY_HEADER_BYTES + self._open_tokens * dtype.itemsize
            if os.fstat(self._file.fileno()).st_size < expected:
                raise DataError(
                    f"{self._path()} lost what was written to it; remove {folder} and prepare again"
                )
            self._file.truncate(expected)
            self._file.seek(0, os.SEEK_END)

    @property
    def tokens(self) -> int:
        """Ids so far."""
        return sum(shard["tokens"] for shard in self.shards) + self._open_tokens

    def _path(self) -> Path:
        return self._folder / f"{self._split}_{len(self.shards):06d}{self._suffix}"

    def append(self, path: Path, tokens: int, crc: int) -> None:
        """Appends a file of ids.

        Raises:
            DataError: it is not what its record says; nothing in `state` knows of it yet, so it can be made again.
        """
        found = 0
        with open(path, "rb") as file:
            while data := file.read(COPY_BYTES):
                found = zlib.crc32(data, found)
                tokens -= len(data) // self._dtype.itemsize
                self.write(data)
        if found != crc or tokens:
            raise DataError(f"{path} was damaged after it was written; run the same command again")

    def append_shard(self, shard: Shard) -> None:
        """Appends the ids of a shard that another writer made.

        Raises:
            DataError: it is not what was written.
        """
        digest = hashlib.sha256()
        with open(shard.path, "rb") as file:
            digest.update(file.read(shard.offset))
            while data := file.read(COPY_BYTES):
                digest.update(data)
                self.write(data)
        if digest.hexdigest() != shard.sha256:
            raise DataError(
                f"{shard.path} was damaged after it was written; remove {shard.path.parent} and make that part again"
            )

    def write(self, data: bytes) -> None:
        """Appends ids given as bytes, closing each shard that gets full."""
        view = memoryview(data)
        while view:
            if self._file is None:
                self._file = open(self._path(), "w+b")  # noqa: SIM115
                self._file.write(bytes(NPY_HEADER_BYTES))  # no valid header before the shard is whole
            room = (self._shard_tokens - self._open_tokens) * self._dtype.itemsize
            part, view = view[:room], view[room:]
            self._file.write(part)
            self._open_tokens += len(part) // self._dtype.itemsize
            if self._open_tokens == self._shard_tokens:
                self._close_shard()

    def _close_shard(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.write(npy_header(self._dtype, self._open_tokens))
        self.sync()
        self._file.close()
        path, tokens = self._path(), self._open_tokens
        self._file, self._open_tokens = None, 0
        self.shards.append({"file": path.name, "tokens": tokens, "sha256": sha256_file(path)})

    def sync(self) -> None:
        """Flushes what was written to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def state(self) -> dict[str, Any]:
        """What is written so far, for a later writer. Call `sync` first if it is to be durable."""
        return {"shards": list(self.shards), "open_tokens": self._open_tokens}

    def finish(self) -> None:
        """Closes the last shard, which may be shorter."""
        if self._file is not None:
            self._close_shard()

    def close(self) -> None:
        """Lets go of the open file without finishing it."""
        if self._file is not None:
            self._file.close()
            self._file = None
