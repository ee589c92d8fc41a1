"""The formats that can be read, in the table `READERS`: a file to texts.

A text file is one document, a JSONL line one, a parquet row one, a record of a web archive one. What cannot be read is
a `BadDocumentError`, which names file and line: raised, or, with --skip-bad, counted.
"""

from collections.abc import Callable, Iterator

from myna.data.sources.jsonl import read_jsonl, require_fields
from myna.data.sources.parquet import read_parquet, require_columns
from myna.data.sources.pydoc import pydoc_documents
from myna.data.sources.pydoc_chat import pydoc_conversations
from myna.data.sources.reading import BadDocumentError, Skips, open_bytes, reading
from myna.data.sources.row_filter import RowFilter
from myna.data.sources.source import ReadOptions, Source
from myna.data.sources.web_archive import read_archive, require_headers
from myna.errors import DataError


def read_texts(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    """The documents of a file on this machine, or of a part of it, in order, empty ones too.

    Args:
        skips: told of what is left out, and of each document that can't be used; it may raise.
    Raises:
        DataError: the file is missing, or not what its name says; or it can't hold what is looked for.
    """
    if options.conversations != (source.kind == "pydoc-chat") and source.kind not in ("jsonl", "parquet"):
        raise DataError(
            f"{source.name} is no corpus of conversations; give .jsonl or .parquet files with messages"
            if options.conversations
            else f"{source.name} holds conversations; prepare it with --conversations"
        )
    if options.where is not None:
        require_filter(source, options.where)
    with reading(source):
        yield from READERS[source.kind](source, options, skips)


def require_filter(source: Source, where: RowFilter) -> None:
    """Raises DataError unless a file's documents are rows that have the columns of a filter.

    Of a file that is not on this machine yet, only its kind is asked.
    """
    ask = COLUMNS_OF.get(source.kind)
    if ask is None:
        raise DataError(
            f"{source.name} is text without columns, so --where can't filter it; give .jsonl, .parquet or .warc files"
        )
    if not source.is_remote:
        with reading(source):
            ask(source, where)


def _read_pydoc(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    yield from pydoc_documents()


def _read_pydoc_chat(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    yield from pydoc_conversations()


def _read_text(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    with open_bytes(source) as file:
        if source.start:
            file.seek(source.start)
        data = file.read() if source.end is None else file.read(source.end - source.start)
    try:
        yield data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        at = f"byte {source.start + error.start:,}" + ("" if source.start else f" (line {line:,})")
        if source.split is not None:
            raise DataError(
                f"{source.name} is not UTF-8 at {at}; a document this large is used whole, so convert it"
            ) from error
        skips.bad(BadDocumentError(f"{source.name} is not UTF-8 at {at}; convert it"))


Reader = Callable[[Source, ReadOptions, Skips], Iterator[str]]
# A format is a function here and a suffix in `source.KINDS`.
READERS: dict[str, Reader] = {
    "text": _read_text,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "warc": read_archive,
    "pydoc": _read_pydoc,
    "pydoc-chat": _read_pydoc_chat,
}
# Of formats whose documents have columns: raises DataError unless a file has those of a filter.
COLUMNS_OF: dict[str, Callable[[Source, RowFilter], None]] = {
    "jsonl": require_fields,
    "parquet": require_columns,
    "warc": require_headers,
}
