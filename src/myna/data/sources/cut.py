"""A large file in parts of about 16 MB, each of which can be read by itself: by another worker, or after a kill.

A parquet file is cut between row groups, JSONL at line ends, a text where no token can span the cut. Where the cuts
are depends on the file alone, never on the number of workers; and the ids do not depend on the cuts.
"""

import mmap
import re
from collections.abc import Iterator

from myna.data.sources.parquet import document_column, open_parquet
from myna.data.sources.reading import require_unchanged
from myna.data.sources.source import ReadOptions, Source
from myna.data.sources.validation import document_hash, split_of, validation_cut
from myna.errors import DataError

PART_BYTES = 16 << 20
# Where GPT-2's and GPT-4's patterns always end a pre-token: between a letter or digit and the space after it.
SAFE_CUT = re.compile(rb"[0-9A-Za-z](?=[ \n])")


def may_be_cut(source: Source, options: ReadOptions) -> bool:
    """Whether a file may have several parts, by what is known before it is on this machine."""
    if source.kind == "parquet":
        return not options.is_single
    if source.compression or (source.n_bytes or 0) <= PART_BYTES:
        return False
    return (source.kind == "jsonl" and not options.is_single) or (source.kind == "text" and options.cut_texts)


def cut_file(source: Source, options: ReadOptions) -> Iterator[tuple[Source, int]]:
    """The parts of a file on this machine, in order. A small file is one part.

    Yields:
        a part, and how many bytes of the file it stands for.
    Raises:
        DataError: the file is not what its name says, or has no such column.
    """
    size = source.n_bytes or 0
    try:
        if not may_be_cut(source, options):
            yield source, size
        elif source.kind == "parquet":
            yield from _cut_parquet(source, options)
        elif source.kind == "jsonl":
            for start in range(0, size, PART_BYTES):
                end = min(start + PART_BYTES, size)
                yield source.part(start, end), end - start
        else:
            yield from _cut_text(source, options)
    except OSError as error:
        raise DataError(f"cannot read {source.name}: {error.strerror}") from error


def _cut_parquet(source: Source, options: ReadOptions) -> Iterator[tuple[Source, int]]:
    """Runs of row groups with about `PART_BYTES` of text between them."""
    size = source.n_bytes or 0
    with open_parquet(source) as file:
        metadata = file.metadata
        if metadata.num_row_groups == 0:
            yield source.part(0, 0), size
            return
        name = document_column(source, file.schema_arrow, options)
        # A column of lists has a path for each field of theirs: name.list.element.content
        paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
        columns = [number for number, path in enumerate(paths) if path.partition(".")[0] == name]
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        texts = [sum(group.column(number).total_uncompressed_size for number in columns) for group in groups]
    start = 0
    for end in range(1, len(texts) + 1):
        if end == len(texts) or sum(texts[start : end + 1]) > PART_BYTES:
            yield source.part(start, end), size * end // len(texts) - size * start // len(texts)
            start = end


def _cut_text(source: Source, options: ReadOptions) -> Iterator[tuple[Source, int]]:
    """One large document: cut where no pre-token is cut, so that its ids are those of the whole."""
    with open(source.place, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        require_unchanged(source)
        size = len(data)
        if options.is_single:
            border = validation_cut(data, options.val_fraction)
            spans = [("train", 0, border), ("val", border, size)]
        else:
            digest = document_hash(b"")
            while block := file.read(PART_BYTES):
                digest.update(block)
            spans = [(split_of(digest, options.val_fraction), 0, size)]
        for split, first, last in spans:
            start = first
            while start < last:
                require_unchanged(
                    source
                )  # of a file that was cut short, the map's end would end this process
                found = SAFE_CUT.search(data, min(start + PART_BYTES, last), last)
                end = found.end() if found else last
                yield source.part(start, end, split, begins=start == first), end - start
                start = end
