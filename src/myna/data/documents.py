"""A corpus's documents one by one, in this process: for training a tokenizer, or looking at what validation will be."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from myna.data.corpora import default_val_fraction, find_corpus
from myna.data.encode import documents_of
from myna.data.fetch import Fetcher
from myna.data.pieces import Cut, cut_unit, units_of
from myna.data.reading import BadDocumentError, Segment, read_segment
from myna.data.sources import SourceFile
from myna.errors import MynaError


def documents(
    specs: Sequence[str],
    split: str | None = None,
    val_fraction: float | None = None,
    column: str | None = None,
) -> Iterator[str]:
    """The texts of a corpus, in the order that `prepare` writes them, without empty ones.

    A document over 16 MB, or the only one of a corpus, may come in several parts.

    Args:
        specs: what `prepare` takes.
        split: "train" or "val" for that part alone.
        val_fraction: as in `prepare`; None for its default.
        column: the text column or field; None to find it.
    Raises:
        DataError, DownloadError: as `prepare`.
    """
    files: Sequence[SourceFile] = find_corpus(specs).files
    fraction = default_val_fraction(specs) if val_fraction is None else val_fraction
    only = only_document(files, column) if fraction else None
    files = [only] if only else files
    cut = Cut(column, fraction, single=only is not None, large_texts=True)
    with tempfile.TemporaryDirectory() as folder, Fetcher(files, Path(folder)) as fetcher:
        for unit in units_of(files):
            paths = [fetcher.get(number) for number in range(unit.first, unit.first + len(unit.files))]
            for piece in cut_unit(unit, paths, cut):
                for segment in piece.segments:
                    for text, found, _, _ in documents_of(segment, fraction, _raise):
                        if text and split in (None, found):
                            yield text
            fetcher.release_before(unit.first + len(unit.files))


def _raise(error: BadDocumentError) -> None:
    raise error


def only_document(files: Sequence[SourceFile], column: str | None) -> SourceFile | None:
    """The file that holds the only document of a corpus, or None if there are more or it is remote."""
    found: list[SourceFile] = []
    for file in files:
        if file.is_remote or file.kind == "pydoc":
            return None
        if file.kind == "text":
            found += [file] * bool(file.n_bytes)
        else:
            found += [file] * _count_to_two(file, column)
        if len(found) > 1:
            return None
    return found[0] if found else None


def _count_to_two(file: SourceFile, column: str | None) -> int:
    """How many documents a file holds, but no more than two. Bad ones count: whoever reads them will complain."""
    bad: list[MynaError] = []
    count = 0
    for text in read_segment(
        Segment(file.name, file.place, file.kind, file.compression, column=column), bad.append
    ):
        count += bool(text)
        if count + len(bad) >= 2:
            break
    return min(count + len(bad), 2)
