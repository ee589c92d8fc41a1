"""Encoded chunks become shards, in the order of the corpus. What is written so far is one JSON object: the journal."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from myna.data.prepare.chunks import Chunk
from myna.data.prepare.encode import encoded_file
from myna.data.prepare.shard_writer import ShardWriter
from myna.data.split import SPLITS


class Assembler:
    """Appends chunks to the shards of both splits, and counts.

    Args:
        folder: where the shards go.
        shard_tokens: ids a file.
        state: of an earlier assembler, to go on from it; {} to begin.
    Attributes:
        position: (file, index) of the next chunk; see `Chunk`.
        input_bytes: how much of the corpus's files is done.
        totals: for "train" and "val": documents and bytes; `empty` and `bad` (counts), `first_bad` (a message), and
            `largest_val`: the bytes of the largest document in validation, and the name of its file.
    """

    def __init__(self, folder: Path, dtype: np.dtype, shard_tokens: int, state: dict[str, Any]) -> None:
        self.position: tuple[int, int] = tuple(state.get("position", (0, 0)))
        self.input_bytes: int = state.get("input_bytes", 0)
        self.totals: dict[str, Any] = state.get("totals") or {
            **{name: {"documents": 0, "bytes": 0} for name in SPLITS},
            "empty": 0,
            "bad": 0,
            "first_bad": None,
            "largest_val": (0, ""),
        }
        self.writers = {
            name: ShardWriter(folder, name, dtype, shard_tokens, state.get(name, {})) for name in SPLITS
        }

    def append(self, chunk: Chunk, record: dict[str, Any], folder: Path) -> None:
        """Appends an encoded chunk and removes its files.

        Args:
            record: what `encode_chunk` returned.
            folder: where it put the ids.
        Raises:
            DataError: the files are not what the record says.
        """
        totals = self.totals
        for name, writer in self.writers.items():
            path, part = encoded_file(folder, chunk, name), record[name]
            writer.append(path, part["tokens"], part["crc"])
            path.unlink()
            totals[name]["documents"] += part["documents"]
            totals[name]["bytes"] += part["bytes"]
        totals["empty"] += record["empty"]
        totals["bad"] += record["bad"]
        totals["first_bad"] = totals["first_bad"] or record["first_bad"]
        totals["largest_val"] = max(tuple(totals["largest_val"]), tuple(record["largest_val"]))
        self.position = (chunk.file, chunk.index + 1)
        self.input_bytes += chunk.input_bytes

    def state(self) -> dict[str, Any]:
        """Flushes the shards to the disk; returns what a later assembler needs to go on."""
        for writer in self.writers.values():
            writer.sync()
        return {
            "position": self.position,
            "input_bytes": self.input_bytes,
            "totals": self.totals,
            **{name: writer.state() for name, writer in self.writers.items()},
        }

    def finish(self) -> dict[str, dict[str, Any]]:
        """Closes the last shards; returns what dataset.json says of each split."""
        for writer in self.writers.values():
            writer.finish()
        return {
            name: {**self.totals[name], "tokens": writer.tokens, "shards": writer.shards}
            for name, writer in self.writers.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self.writers.values():
            writer.close()
