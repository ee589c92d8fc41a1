"""A corpus is cut into pieces of work: the same pieces whatever the number of workers.

First into units: one large file, or a run of small ones. A unit's own pieces are found when its turn comes, so that
a thousand remote files are neither opened nor fetched before they are needed. A piece is some segments of files, about
16 MB of text; its number (unit, index) fixes its place in the stream, and with that every byte that is written.
"""

import hashlib
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from myna.data.reading import Segment, hash_is_below, open_parquet, text_column
from myna.data.sources import SourceFile
from myna.errors import DataError, TokenizerError
from myna.text.tokenizer import Tokenizer

PIECE_BYTES = 16 << 20
PIECE_FILES = 1024
# What a byte of a compressed file stands for, roughly: only the size of pieces depends on it.
EXPANSION = 4
# Where GPT-2's and GPT-4's patterns always end a pre-token: between a letter or digit and the space after it.
SAFE_CUT = re.compile(rb"[0-9A-Za-z](?=[ \n])")


@dataclass(frozen=True)
class Cut:
    """How a corpus's files are cut.

    Attributes:
        column: the text column or field; None to find it.
        val_fraction: the share of validation.
        single: the corpus is one document, so its last part is validation.
        large_texts: whether a large text may be cut, because the tokenizer then gives the ids of the whole.
    """

    column: str | None
    val_fraction: float
    single: bool
    large_texts: bool


@dataclass(frozen=True)
class Unit:
    """Consecutive files of a corpus that are cut into pieces together: several small ones, or one.

    Attributes:
        number: its place among the units. first: its first file's place among the corpus's files.
    """

    number: int
    first: int
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Piece:
    """One worker's work at a time.

    Attributes:
        unit, index: its place in the order of the corpus.
        input_bytes: how much of the source files it stands for, for the progress bar.
    """

    unit: int
    index: int
    segments: tuple[Segment, ...]
    input_bytes: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.unit:06d}_{self.index:06d}"


def units_of(files: Sequence[SourceFile]) -> list[Unit]:
    """The corpus as units, in order. A unit of several files holds about one piece of text."""
    units: list[Unit] = []
    group: list[SourceFile] = []
    group_bytes = 0

    def close_group(end: int) -> None:
        nonlocal group, group_bytes
        if group:
            units.append(Unit(len(units), end - len(group), tuple(group)))
        group, group_bytes = [], 0

    for number, file in enumerate(files):
        size = (file.n_bytes or 0) * (EXPANSION if file.compression or file.kind == "parquet" else 1)
        if file.is_remote or size >= PIECE_BYTES:
            close_group(number)
            units.append(Unit(len(units), number, (file,)))
            continue
        if group_bytes + size > PIECE_BYTES or len(group) == PIECE_FILES:
            close_group(number)
        group.append(file)
        group_bytes += size
    close_group(len(files))
    return units


def can_cut_texts(tokenizer: Tokenizer) -> bool:
    """Whether stretches of a text, cut at `SAFE_CUT`, have the ids of the whole: bytes, and two patterns, do."""
    try:
        vocabulary = tokenizer.vocabulary
    except TokenizerError:  # run by its own library, which may do anything
        return False
    return vocabulary.pattern.name in ("gpt2", "gpt4") or all(
        len(token or b"") == 1 for token in vocabulary.tokens
    )


def cut_unit(unit: Unit, paths: Sequence[Path], cut: Cut) -> Iterator[Piece]:
    """A unit's pieces, in order.

    Args:
        paths: where each of its files lies on this machine.
        cut: how.
    Raises:
        DataError: a file is not what its name says, or has no such column.
    """
    if len(unit.files) > 1:
        segments = tuple(
            Segment(file.name, str(path), file.kind, file.compression, column=cut.column)
            for file, path in zip(unit.files, paths, strict=True)
        )
        yield Piece(unit.number, 0, segments, sum(file.n_bytes or 0 for file in unit.files))
        return
    try:
        yield from _cut_file(unit.number, unit.files[0], paths[0], cut)
    except OSError as error:
        raise DataError(f"cannot read {unit.files[0].name}: {error.strerror}") from error


def _cut_file(unit: int, file: SourceFile, path: Path, cut: Cut) -> Iterator[Piece]:
    size = file.n_bytes if file.n_bytes is not None else (path.stat().st_size if file.kind != "pydoc" else 0)
    whole = Segment(file.name, str(path), file.kind, file.compression, column=cut.column, single=cut.single)
    if file.kind == "parquet" and not cut.single:
        yield from _parquet_pieces(unit, whole, size)
    elif file.kind == "jsonl" and not file.compression and size > PIECE_BYTES and not cut.single:
        for index, start in enumerate(range(0, size, PIECE_BYTES)):
            end = min(start + PIECE_BYTES, size)
            yield Piece(unit, index, (whole.part(start, end),), end - start)
    elif file.kind == "text" and not file.compression and size > PIECE_BYTES and cut.large_texts:
        yield from _text_pieces(unit, whole, size, cut.val_fraction)
    else:
        yield Piece(unit, 0, (whole,), size)


def _parquet_pieces(unit: int, whole: Segment, size: int) -> Iterator[Piece]:
    """Runs of row groups with about a piece of text between them."""
    with open_parquet(whole) as file:
        metadata = file.metadata
        if metadata.num_row_groups == 0:
            yield Piece(unit, 0, (whole.part(0, 0),), size)
            return
        name = text_column(whole, file.schema_arrow)
        paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        texts = [group.column(paths.index(name)).total_uncompressed_size for group in groups]
    index = start = 0
    for group in range(len(texts)):
        last = group + 1 == len(texts)
        if last or sum(texts[start : group + 2]) > PIECE_BYTES:
            share = size * (group + 1) // len(texts) - size * start // len(texts)
            yield Piece(unit, index, (whole.part(start, group + 1),), share)
            index, start = index + 1, group + 1


def _text_pieces(unit: int, whole: Segment, size: int, val_fraction: float) -> Iterator[Piece]:
    """One large document in stretches: cut where no pre-token is cut, so that its ids are those of the whole."""
    with open(whole.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if whole.single:
            border = validation_cut(data, val_fraction)
            parts = [("train", 0, border), ("val", border, size)]
        else:
            digest = hashlib.blake2b(digest_size=8)
            for start in range(0, size, PIECE_BYTES):
                digest.update(data[start : start + PIECE_BYTES])
            parts = [("val" if hash_is_below(digest.digest(), val_fraction) else "train", 0, size)]
        index = 0
        for split, first, last in parts:
            start = first
            while start < last:
                found = SAFE_CUT.search(data, min(start + PIECE_BYTES, last), last)
                end = found.end() if found else last
                yield Piece(
                    unit, index, (whole.part(start, end, split=split, begins=start == first),), end - start
                )
                index, start = index + 1, end


def validation_cut(data: "bytes | mmap.mmap", val_fraction: float) -> int:
    """Where the validation part of a corpus of one document begins: a line start, else the start of a character.

    Args:
        data: UTF-8.
        val_fraction: the share from there to the end, about.
    Returns:
        a position in bytes; the length if the fraction is 0.

    >>> validation_cut(b"one\\ntwo\\nthree\\n", 0.8), validation_cut(b"one\\ntwo\\nthree\\n", 0.1)
    (4, 8)
    """
    size = len(data)
    target = size - int(size * val_fraction)
    if target >= size:
        return size
    after = data.find(b"\n", max(target - 1, 0)) + 1
    if 0 < after < size:
        return after
    before = data.rfind(b"\n", 0, max(target - 1, 0)) + 1
    if before > 0:
        return before
    while target > 0 and data[target] & 0xC0 == 0x80:
        target -= 1
    return target
