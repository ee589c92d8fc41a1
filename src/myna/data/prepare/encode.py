"""Documents to ids: what a worker does with one chunk.

The ids of a chunk go to plain files, one a split; those of conversations with a second one, of the ids that are scored.
Their record (counts and a checksum) goes back to the parent, which appends the files to the shards.
"""

import contextlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from myna.data.conversations import is_answered, messages_of
from myna.data.prepare.chunks import Chunk
from myna.data.shards import id_dtype
from myna.data.sources.documents import split_documents
from myna.data.sources.reading import BadDocumentError, Skips, reading, still
from myna.data.sources.source import ReadOptions
from myna.data.split import SCORED_DTYPE, SPLITS
from myna.data.verify import hash_file
from myna.errors import DataError, TokenizerError
from myna.text import patterns
from myna.text.chat import encode_conversation
from myna.text.patterns import blocks
from myna.text.tokenizer import Tokenizer

BLOCK_CHARACTERS = 4 << 20
# A longer text is encoded in stretches: one odd character in it then costs the slow engine for a stretch only.
STRETCH_CHARACTERS = 1 << 18
# What follows the name of a split in that of the stream which says of each of its ids whether it is scored.
SCORED = ".scored"
# What a record counts: documents without text, conversations without answers, documents that can't be used, rows that
# --where leaves out, damaged records of web archives.
COUNTED = ("empty", "unanswered", "bad", "filtered", "damaged")
OpenFile = Callable[[str, np.dtype], "IdFile"]


def can_cut_texts(tokenizer: Tokenizer) -> bool:
    """Whether parts of a text, cut at `cut.SAFE_CUT`, have the ids of the whole: bytes, and two patterns, do."""
    try:
        vocabulary = tokenizer.vocabulary
    except TokenizerError:  # run by its own library, which may do anything
        return False
    return vocabulary.pattern.name in ("gpt2", "gpt4") or all(
        len(token or b"") == 1 for token in vocabulary.tokens
    )


class IdFile:
    """A file of little-endian numbers and nothing else, with what its record says: how many, and a checksum."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._file = open(path, "wb")  # noqa: SIM115
        self.tokens = self.crc = 0

    def write(self, ids: np.ndarray) -> None:
        """Appends ids."""
        data = ids.astype(self._dtype, copy=False).data.cast("B")
        self._file.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.tokens += len(ids)

    def close(self) -> None:
        """Closes it."""
        self._file.close()

    def record(self) -> dict[str, int]:
        """What was written."""
        return {"tokens": self.tokens, "crc": self.crc}


class Encoder(Protocol):
    """Turns one split's documents into files, by the name of the stream that each is a part of."""

    documents: int
    n_bytes: int
    files: dict[str, IdFile]

    def add(self, text: str, n_bytes: int, begins: bool) -> None:
        """Takes a document, or the next part of one."""

    def flush(self) -> None:
        """Encodes and writes what is held."""


class TextEncoder:
    """Collects one split's texts and writes their ids, block by block.

    Args:
        open_file: opens the file of a stream.
        split: the stream.
    """

    def __init__(self, open_file: OpenFile, split: str, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pattern = tokenizer.vocabulary.pattern if can_cut_texts(tokenizer) else patterns.NONE
        dtype = id_dtype(tokenizer.n_vocab)
        self._eot = np.array([tokenizer.eot], dtype=dtype)
        self._ids = open_file(split, dtype)
        self.files = {split: self._ids}
        self._texts: list[str] = []
        self._begins: list[bool] = []
        self._held_characters = 0
        self.documents = self.n_bytes = 0

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
        ids = ids.astype(self._eot.dtype, copy=False)
        ends = np.cumsum(lengths)
        parts: list[np.ndarray] = []
        for begins, start, end in zip(self._begins, (ends - lengths).tolist(), ends.tolist(), strict=True):
            parts += [self._eot, ids[start:end]] if begins else [ids[start:end]]
        self._ids.write(np.concatenate(parts))
        self._texts, self._begins, self._held_characters = [], [], 0


class ConversationEncoder:
    """Writes one split's conversations: their ids, and beside them which are scored.

    Args:
        open_file: opens the file of a stream.
        split: the stream of the ids.
    """

    def __init__(self, open_file: OpenFile, split: str, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids = open_file(split, id_dtype(tokenizer.n_vocab))
        self._scored = open_file(split + SCORED, SCORED_DTYPE)
        self.files = {split: self._ids, split + SCORED: self._scored}
        self.documents = self.n_bytes = 0

    def add(self, text: str, n_bytes: int, begins: bool) -> None:
        """Takes a conversation; of its bytes those of what is said count."""
        messages = messages_of(text)
        ids, scored = encode_conversation(self._tokenizer, messages)
        self._ids.write(np.array(ids))
        self._scored.write(np.array(scored))
        self.documents += 1
        self.n_bytes += sum(len(message.content.encode("utf-8")) for message in messages)

    def flush(self) -> None:
        """Nothing is held."""


class _Counted(Skips):
    """Counts what is left out. A bad document is one more where `skip_bad` says so, and an error else."""

    def __init__(self, skip_bad: bool) -> None:
        super().__init__()
        self._skip_bad = skip_bad
        self._n_bad = 0
        self._first_bad: str | None = None

    def bad(self, error: BadDocumentError) -> None:
        if not self._skip_bad:
            raise DataError(f"{error}, or leave it out with --skip-bad") from error
        self._n_bad += 1
        self._first_bad = self._first_bad or str(error)

    def record(self) -> dict[str, Any]:
        """What was counted."""
        return {
            "bad": self._n_bad,
            "first_bad": self._first_bad,
            "filtered": self.filtered,
            "damaged": self.damaged,
            "first_damaged": self.first_damaged,
        }


def encode_chunk(chunk: Chunk, tokenizer: Tokenizer, options: ReadOptions, folder: Path) -> dict[str, Any]:
    """Encodes one chunk into `folder` and returns its record.

    Returns:
        for "train" and "val": documents, bytes, tokens, crc; of conversations also for "train.scored" and "val.scored":
        tokens, crc; `COUNTED` (counts); `first_bad` and `first_damaged` (a message and a place);
        `largest_val`: the bytes of the largest document in validation, and the name of its file; `inputs`: the name,
        fingerprint and SHA-256 of each file that begins in this chunk and has no published hash.
    Raises:
        DataError: its input can't be used, or changed since it was found.
        OSError: the folder can't be written.
    """
    skips = _Counted(options.skip_bad)
    empty = unanswered = 0
    largest_val = (0, "")
    inputs = []

    with contextlib.ExitStack() as stack:

        def open_file(stream: str, dtype: np.dtype) -> IdFile:
            file = IdFile(encoded_file(folder, chunk, stream), dtype)
            stack.callback(file.close)
            return file

        kind = ConversationEncoder if options.conversations else TextEncoder
        encoders: dict[str, Encoder] = {name: kind(open_file, name, tokenizer) for name in SPLITS}
        for part in chunk.parts:
            with still(part):
                if part.start == 0 and part.is_hashed:
                    with reading(part):
                        inputs.append((part.name, *hash_file(part.place)))
                for text, split, n_bytes, begins in split_documents(part, options, skips):
                    if not text:
                        empty += 1
                    elif options.conversations and not is_answered(messages_of(text)):
                        unanswered += 1
                    else:
                        encoder = encoders[split]
                        before = encoder.n_bytes
                        encoder.add(text, n_bytes, begins)
                        if split == "val":
                            # a part with a known split belongs to a document that is as large as its file
                            whole = encoder.n_bytes - before if part.split is None else part.n_bytes or 0
                            largest_val = max(largest_val, (whole, part.name))
        for encoder in encoders.values():
            encoder.flush()
    records: dict[str, Any] = {}
    for name, encoder in encoders.items():
        records |= {stream: file.record() for stream, file in encoder.files.items()}
        records[name] |= {"documents": encoder.documents, "bytes": encoder.n_bytes}
    counts = {"empty": empty, "unanswered": unanswered, **skips.record()}
    return {**records, **counts, "largest_val": largest_val, "inputs": inputs}


def encoded_file(folder: Path, chunk: Chunk, stream: str) -> Path:
    """Where a chunk's part of a stream is."""
    return folder / f"{chunk.name}.{stream}"
