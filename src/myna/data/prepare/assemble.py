"""Encoded chunks become shards, in the order of the corpus. What is written so far is one JSON object: the journal."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from myna.data.prepare.chunks import Chunk
from myna.data.prepare.encode import COUNTED, SCORED, encoded_file
from myna.data.prepare.shard_writer import ShardWriter
from myna.data.split import SCORED_DTYPE, SPLITS


def no_totals() -> dict[str, Any]:
    """What `add_totals` adds to. See `Assembler.totals`."""
    return {
        **{name: {"documents": 0, "bytes": 0} for name in SPLITS},
        **dict.fromkeys(COUNTED, 0),
        "first_bad": None,
        "first_damaged": None,
        "largest_val": (0, ""),
    }


def add_totals(totals: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Adds what comes next in the corpus: a chunk's record, or another part's totals."""
    for name in SPLITS:
        for count in ("documents", "bytes"):
            totals[name][count] += record[name][count]
    for count in COUNTED:
        totals[count] += record[count]
    for first in ("first_bad", "first_damaged"):
        totals[first] = totals[first] or record[first]
    totals["largest_val"] = max(tuple(totals["largest_val"]), tuple(record["largest_val"]))


class Assembler:
    """Appends chunks to the shards of both splits, and counts.

    Args:
        folder: where the shards go.
        shard_tokens: ids a file.
        state: of an earlier assembler, to go on from it; {} to begin.
    Attributes:
        position: (file, index) of the next chunk; see `Chunk`.
        input_bytes: how much of the corpus's files is done.
        totals: for "train" and "val": documents and bytes; `COUNTED` (counts), `first_bad` and `first_damaged`, and
            `largest_val`: the bytes of the largest document in validation, and the name of its file.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype,
        shard_tokens: int,
        state: dict[str, Any],
        conversations: bool = False,
    ) -> None:
        self.position: tuple[int, int] = tuple(state.get("position", (0, 0)))
        self.input_bytes: int = state.get("input_bytes", 0)
        self.totals: dict[str, Any] = {**no_totals(), **state.get("totals", {})}
        dtypes = dict.fromkeys(SPLITS, dtype)
        if conversations:
            dtypes |= {name + SCORED: SCORED_DTYPE for name in SPLITS}
        self.writers = {
            stream: ShardWriter(folder, stream, dtype, shard_tokens, state.get(stream, {}))
            for stream, dtype in dtypes.items()
        }

    def append(self, chunk: Chunk, record: dict[str, Any], folder: Path) -> None:
        """Appends an encoded chunk and removes its files.

        Args:
            record: what `encode_chunk` returned.
            folder: where it put the ids.
        Raises:
            DataError: the files are not what the record says.
        """
        for stream, writer in self.writers.items():
            path, part = encoded_file(folder, chunk, stream), record[stream]
            writer.append(path, part["tokens"], part["crc"])
            path.unlink()
        add_totals(self.totals, record)
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
        found = {}
        for name in SPLITS:
            ids, scored = self.writers[name], self.writers.get(name + SCORED)
            found[name] = {**self.totals[name], "tokens": ids.tokens, "shards": ids.shards}
            if scored:  # cut where the ids are
                shards = [
                    {**of_ids, "scored": {key: of_mask[key] for key in ("file", "sha256")}}
                    for of_ids, of_mask in zip(ids.shards, scored.shards, strict=True)
                ]
                found[name]["shards"] = shards
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self.writers.values():
            writer.close()
