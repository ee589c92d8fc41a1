"""A corpus's documents one by one, each with the split it falls to."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from myna.data.sources.corpora import default_val_fraction, find_files
from myna.data.sources.cut import cut_file
from myna.data.sources.fetch import Fetcher
from myna.data.sources.formats import read_texts
from myna.data.sources.reading import BadDocumentError, Skips
from myna.data.sources.row_filter import RowFilter
from myna.data.sources.source import ReadOptions, Source
from myna.data.sources.validation import document_hash, split_of, validation_cut


def documents(
    specs: Sequence[str],
    split: str | None = None,
    val_fraction: float | None = None,
    column: str | None = None,
) -> Iterator[str]:
    """The texts of a corpus, in the order that `prepare` writes them, without empty ones. Works in this process.

    A document over 16 MB, or the only one of a corpus, may come in several parts.

    Args:
        specs: what `prepare` takes.
        split: "train" or "val" for that part alone.
        val_fraction: as in `prepare`; None for its default.
        column: the text column or field; None to find it.
    Raises:
        DataError, DownloadError: as `prepare`.
    """
    for text, found, _ in document_parts(specs, val_fraction, column):
        if split in (None, found):
            yield text


def document_parts(
    specs: Sequence[str], val_fraction: float | None = None, column: str | None = None
) -> Iterator[tuple[str, str, bool]]:
    """The same, for who has to know where documents begin. See `documents` for the arguments.

    Yields:
        (text, "train" or "val", whether it begins a document); no empty text.
    """
    files = find_files(specs)
    fraction = default_val_fraction(specs) if val_fraction is None else val_fraction
    only = only_document(files, column) if fraction else None
    files = [only] if only else files
    options = ReadOptions(column, fraction, is_single=only is not None)
    with tempfile.TemporaryDirectory() as folder, Fetcher(files, Path(folder)) as fetcher:
        for number in range(len(files)):
            for part, _ in cut_file(fetcher.get(number), options):
                for text, split, _, begins in split_documents(part, options, Skips()):
                    if text:
                        yield text, split, begins
            fetcher.release_before(number + 1)


def split_documents(
    source: Source, options: ReadOptions, skips: Skips
) -> Iterator[tuple[str, str, int, bool]]:
    """The documents of a file on this machine, or of a part of it, and the split each falls to.

    Args:
        skips: told of what is left out, and of each document that can't be used; it may raise.
    Yields:
        (text, "train" or "val", UTF-8 bytes, whether it begins a document). Empty documents are ("", "", 0, True).
    """
    for text in read_texts(source, options, skips):
        if not text:
            yield "", "", 0, True
            continue
        data = text.encode("utf-8")
        if source.split is not None:
            yield text, source.split, len(data), source.begins
        elif options.is_single:
            cut = validation_cut(data, options.val_fraction)
            for split, part in (("train", data[:cut]), ("val", data[cut:])):
                if part:
                    yield part.decode("utf-8"), split, len(part), True
        elif options.val_fraction == 0:
            yield text, "train", len(data), True
        else:
            yield text, split_of(document_hash(data), options.val_fraction), len(data), True


def only_document(
    files: Sequence[Source], column: str | None, where: RowFilter | None = None
) -> Source | None:
    """The file that holds the only document of a corpus, or None if there are more or the corpus is remote."""
    found: list[Source] = []
    for file in files:
        if file.is_remote or file.is_built_in:
            return None
        if file.kind == "text":
            found += [file] * bool(file.n_bytes)
        else:
            found += [file] * _count_to_two(file, ReadOptions(column, where=where))
        if len(found) > 1:
            return None
    return found[0] if found else None


class _Bad(Skips):
    """Counts bad documents, and goes on."""

    n_bad = 0

    def bad(self, error: BadDocumentError) -> None:
        self.n_bad += 1


def _count_to_two(file: Source, options: ReadOptions) -> int:
    """How many documents a file holds, but no more than two. Bad ones count: whoever reads them will complain."""
    skips = _Bad()
    count = 0
    for text in read_texts(file, options, skips):
        count += bool(text)
        if count + skips.n_bad >= 2:
            break
    return min(count + skips.n_bad, 2)
