"""Documents to ids: what a worker does with one piece.

A document falls to validation by the hash of its text, so the same text is always on the same side. The ids of a piece
go to two plain files, and last a small record of them; where the record lies, the piece is whole.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from myna.data.pieces import Piece, can_cut_texts, validation_cut
from myna.data.reading import BadDocumentError, Segment, hash_is_below, read_segment
from myna.data.shards import id_dtype
from myna.data.split import SPLITS
from myna.errors import DataError
from myna.text import patterns
from myna.text.patterns import blocks
from myna.text.tokenizer import Tokenizer

BLOCK_CHARACTERS = 4 << 20
# A longer text is encoded in stretches: one odd character in it then costs the slow engine for a stretch only.
STRETCH_CHARACTERS = 1 << 18


def documents_of(segment: Segment, val_fraction: float, on_bad: Any) -> Iterator[tuple[str, str, int, bool]]:
    """A segment's documents and the split each falls to.

    Yields:
        (text, "train" or "val", UTF-8 bytes, whether it begins a document). Empty documents are ("", "", 0, True).
    """
    for text in read_segment(segment, on_bad):
        if not text:
            yield "", "", 0, True
            continue
        data = text.encode("utf-8")
        if segment.split is not None:
            yield text, segment.split, len(data), segment.begins
        elif segment.single:
            cut = validation_cut(data, val_fraction)
            for split, part in (("train", data[:cut]), ("val", data[cut:])):
                if part:
                    yield part.decode("utf-8"), split, len(part), True
        elif val_fraction == 0:
            yield text, "train", len(data), True
        else:
            digest = hashlib.blake2b(data, digest_size=8).digest()
            yield text, "val" if hash_is_below(digest, val_fraction) else "train", len(data), True


class SplitEncoder:
    """Collects one split's texts and writes their ids, block by block.

    Args:
        path: the file to write: little-endian ids and nothing else.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pattern = tokenizer.vocabulary.pattern if can_cut_texts(tokenizer) else patterns.NONE
        self._dtype = id_dtype(tokenizer.n_vocab)
        self._eot = np.array([tokenizer.eot], dtype=self._dtype)
        self._file = open(path, "wb")  # noqa: SIM115
        self._texts: list[str] = []
        self._begins: list[bool] = []
        self._held_characters = 0
        self.documents = self.n_bytes = self.tokens = self.crc = 0

    def add(self, text: str, n_bytes: int, begins: bool) -> None:
        """Takes a text; `begins` puts the end-of-text id before it."""
        self.documents += begins
        for part in blocks(self._pattern, text, STRETCH_CHARACTERS):
            self._texts.append(part)
            self._begins.append(begins)
            begins = False
            self._held_characters += len(part)
            if self._held_characters >= BLOCK_CHARACTERS:
                self.flush()
        self.n_bytes += n_bytes

    def flush(self) -> None:
        """Encodes and writes what is held."""
        if not self._texts:
            return
        ids, lengths = self._tokenizer.encode_arrays(self._texts)
        if len(ids) and int(ids.max()) >= self._tokenizer.n_vocab:
            raise DataError(f"tokenizer {self._tokenizer.name} made id {ids.max()}, outside its vocabulary")
        ids = ids.astype(self._dtype, copy=False)
        ends = np.cumsum(lengths)
        parts: list[np.ndarray] = []
        for begins, start, end in zip(self._begins, (ends - lengths).tolist(), ends.tolist(), strict=True):
            parts += [self._eot, ids[start:end]] if begins else [ids[start:end]]
        stream = np.concatenate(parts)
        data = stream.data.cast("B")
        self._file.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.tokens += len(stream)
        self._texts, self._begins, self._held_characters = [], [], 0

    def close(self) -> None:
        """Closes the file without flushing what is held."""
        self._file.close()

    def record(self) -> dict[str, int]:
        """What was written."""
        return {"documents": self.documents, "bytes": self.n_bytes, "tokens": self.tokens, "crc": self.crc}


def encode_piece(
    piece: Piece, tokenizer: Tokenizer, val_fraction: float, skip_bad: bool, folder: Path
) -> dict[str, Any]:
    """Encodes one piece into `folder` and returns its record.

    Returns:
        for "train" and "val": documents, bytes, tokens, crc; and `empty`, `bad` (counts) and `first_bad` (a message).
    Raises:
        DataError: its input can't be used.
        OSError: the folder can't be written.
    """
    skipped: dict[str, Any] = {"empty": 0, "bad": 0, "first_bad": None}

    def on_bad(error: BadDocumentError) -> None:
        if not skip_bad:
            raise error
        skipped["bad"] += 1
        skipped["first_bad"] = skipped["first_bad"] or str(error)

    with contextlib.ExitStack() as stack:
        encoders = {name: SplitEncoder(piece_file(folder, piece.name, name), tokenizer) for name in SPLITS}
        for encoder in encoders.values():
            stack.callback(encoder.close)
        for segment in piece.segments:
            for text, split, n_bytes, begins in documents_of(segment, val_fraction, on_bad):
                if text:
                    encoders[split].add(text, n_bytes, begins)
                else:
                    skipped["empty"] += 1
        for encoder in encoders.values():
            encoder.flush()
    record = {name: encoder.record() for name, encoder in encoders.items()} | skipped
    temporary = piece_file(folder, piece.name, "tmp")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    os.replace(temporary, piece_file(folder, piece.name, "json"))
    return record


def piece_file(folder: Path, piece_name: str, part: str) -> Path:
    """Where one file of an encoded piece lies: part is "train", "val" or "json"."""
    return folder / f"{piece_name}.{part}"


def finished_piece(folder: Path, piece_name: str) -> dict[str, Any] | None:
    """The record of a piece that an earlier, interrupted call finished; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(piece_file(folder, piece_name, "json").read_bytes())
    return None


def remove_piece(folder: Path, piece_name: str) -> None:
    """Removes an encoded piece; its record first, so that it is never taken for a whole one."""
    for part in ("json", *SPLITS):
        piece_file(folder, piece_name, part).unlink(missing_ok=True)
