"""Files to texts: the formats that can be read, in the table `READERS`.

A text file is one document, a JSONL line one, a parquet row one. What cannot be read is a `BadDocumentError`, which
names file and line: raised, or, with --skip-bad, counted. Memory: one document, or one batch of rows.
"""

import contextlib
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from myna.data.conversations import FIELDS, choose_field, conversation_text
from myna.data.sources.pydoc import pydoc_documents
from myna.data.sources.pydoc_chat import pydoc_conversations
from myna.data.sources.source import ReadOptions, Source
from myna.errors import DataError, TextError, first_line
from myna.parsing import parse_json

BATCH_ROWS = 512
COLUMNS = ("text", "content")
PARQUET_MAGIC = b"PAR1"
BAD = object()


class BadDocumentError(DataError):
    """One document that can't be used: not JSON, without the text field, not UTF-8. `prepare` can skip it."""


OnBad = Callable[[BadDocumentError], None]


def read_texts(source: Source, options: ReadOptions, on_bad: OnBad) -> Iterator[str]:
    """The documents of a file on this machine, or of a part of it, in order, empty ones too.

    Args:
        on_bad: told of each document that can't be used; it may raise.
    Raises:
        DataError: the file is missing, or not what its name says; or it can't hold what is looked for.
    """
    if options.conversations != (source.kind == "pydoc-chat") and source.kind not in ("jsonl", "parquet"):
        raise DataError(
            f"{source.name} is no corpus of conversations; give .jsonl or .parquet files with messages"
            if options.conversations
            else f"{source.name} holds conversations; prepare it with --conversations"
        )
    with reading(source):
        yield from READERS[source.kind](source, options, on_bad)


@contextlib.contextmanager
def reading(source: Source) -> Iterator[None]:
    """Turns what goes wrong while a file is read or decompressed into a DataError that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"cannot read {source.name}: {error.strerror}") from error
        raise DataError(f"{source.name} is cut short or damaged ({error}); fetch it again") from error


def require_unchanged(source: Source) -> None:
    """Raises DataError where a file is no longer as it was when the corpus was listed, by its size and time.

    Asked after each part is read: so all parts, the cuts between them and the file's hash are of the same content.
    """
    if source.modified_ns is None:
        return
    try:
        status = os.stat(source.place)
    except OSError as error:
        raise DataError(f"cannot read {source.name}: {error.strerror}") from error
    if (status.st_size, status.st_mtime_ns) != (source.n_bytes, source.modified_ns):
        raise DataError(
            f"{source.name} was changed while it was read; run the same command again when nothing writes to it"
        )


@contextlib.contextmanager
def still(source: Source) -> Iterator[None]:
    """Holds a file to what it was when the corpus was listed, while the block reads it. See `require_unchanged`."""
    try:
        yield
    except DataError:  # what was wrong in it may be the change
        require_unchanged(source)
        raise
    require_unchanged(source)


@contextlib.contextmanager
def open_bytes(source: Source) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed."""
    with open(source.place, "rb") as file:
        if source.compression == "gz":
            with gzip.open(file) as inner:
                yield cast(IO[bytes], inner)
        elif source.compression == "zst":
            from myna.data.sources.zstd import zstd_reader

            yield zstd_reader(file)
        else:
            yield file


def _read_pydoc(source: Source, options: ReadOptions, on_bad: OnBad) -> Iterator[str]:
    yield from pydoc_documents()


def _read_pydoc_chat(source: Source, options: ReadOptions, on_bad: OnBad) -> Iterator[str]:
    yield from pydoc_conversations()


def _read_text(source: Source, options: ReadOptions, on_bad: OnBad) -> Iterator[str]:
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
        on_bad(BadDocumentError(f"{source.name} is not UTF-8 at {at}; convert it"))


def _read_jsonl(source: Source, options: ReadOptions, on_bad: OnBad) -> Iterator[str]:
    with open_bytes(source) as file:
        column = options.column or _jsonl_field(source, options)
        number: int | None = 0
        if source.start:
            file.seek(source.start - 1)
            file.readline()  # the line that holds the byte before us belongs to the part before us
            number = None
        at = file.tell() if source.end is not None else 0
        while source.end is None or at < source.end:
            line = file.readline()
            if not line:
                return
            number = None if number is None else number + 1
            if line.strip():
                text, why = _document_of_line(line, column, options)
                if text is None:
                    where = number if number is not None else _line_number(source, at)
                    on_bad(BadDocumentError(f"{source.name}, line {where:,}: {why}; mend it"))
                else:
                    yield text
            at += len(line)


def _document_of_line(line: bytes, column: str, options: ReadOptions) -> tuple[str | None, str]:
    """A JSONL line's document, or None and what is wrong."""
    try:
        value = parse_json(line)
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start:,} of the line"
    except ValueError:
        return None, "not JSON"
    found = value.get(column) if isinstance(value, dict) else None
    if options.conversations:
        return _conversation(found, column)
    if not isinstance(found, str):
        return None, f"no text in a field {column!r}"
    try:
        found.encode("utf-8")
    except UnicodeEncodeError:
        return None, "a lone surrogate, which is no character"
    return found, ""


def _conversation(value: Any, column: str) -> tuple[str | None, str]:
    """The document of a conversation, or None and what is wrong."""
    if value is None:
        return None, f"no conversation in {column!r}"
    try:
        return conversation_text(value), ""
    except TextError as error:
        return None, str(error)


def _line_number(source: Source, at: int) -> int:
    """Counts the lines before a byte; asked only when there is an error to report."""
    count = 1
    with open(source.place, "rb") as file:
        while at > 0 and (block := file.read(min(at, 1 << 20))):
            count += block.count(b"\n")
            at -= len(block)
    return count


def _jsonl_field(source: Source, options: ReadOptions) -> str:
    """The field that holds the text: `text`, `content`, or the only string in the first line that is an object.

    Of conversations: `messages` or `conversations`.
    """
    with open_bytes(source) as file:
        for line in file:
            try:
                value = parse_json(line)
            except ValueError:
                continue
            if isinstance(value, dict) and options.conversations:
                return _conversation_field(source.name, list(value))
            if isinstance(value, dict):
                return _choose(
                    source.name, [key for key in value if isinstance(value[key], str)], list(value)
                )
    return FIELDS[0] if options.conversations else COLUMNS[0]


def _conversation_field(name: str, names: list[str]) -> str:
    found = choose_field(names)
    if found is None:
        raise DataError(
            f"{name}: which column holds the conversations? It has {', '.join(names) or 'none'}; name one with --column"
        )
    return found


def _choose(name: str, strings: list[str], all_names: list[str]) -> str:
    for column in COLUMNS:
        if column in strings:
            return column
    if len(strings) == 1:
        return strings[0]
    for column in COLUMNS:
        if column in all_names and not strings:
            raise DataError(
                f"{name}: its field {column!r} is not text; mend it, or name another with --column"
            )
    conversations = choose_field(all_names)
    if conversations:
        raise DataError(f"{name} holds conversations in {conversations!r}; prepare it with --conversations")
    raise DataError(
        f"{name}: which column holds the text? It has {', '.join(all_names) or 'none'}; name one with --column"
    )


@contextlib.contextmanager
def open_parquet(source: Source) -> Iterator[Any]:
    """A pyarrow ParquetFile.

    Raises:
        DataError: it is no parquet file, or a damaged one.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with open(source.place, "rb") as file:
            head = file.read(64)
        if not head.startswith(PARQUET_MAGIC):
            shown = head[:40].decode("utf-8", errors="replace").split("\n")[0]
            raise DataError(f"{source.name} is no parquet file (it begins with {shown!r}); fetch it again")
        with pyarrow.parquet.ParquetFile(source.place, pre_buffer=False) as parquet:
            yield parquet
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"cannot read {source.name}: {error.strerror}") from error
        raise DataError(
            f"{source.name} is cut short or damaged ({first_line(error)}); fetch it again"
        ) from error


def document_column(source: Source, schema: Any, options: ReadOptions) -> str:
    """The name of the column of a parquet file that holds its texts or conversations.

    Raises:
        DataError: it has no such column, or several that could be.
    """
    import pyarrow.types as types

    column, names = options.column, list(schema.names)
    if options.conversations:
        column = column or _conversation_field(source.name, names)
        if column not in names:
            raise DataError(
                f"{source.name} has no column {column!r}; it has {', '.join(names)}: name one with --column"
            )
        return column

    def is_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view))

    strings = [field.name for field in schema if is_text(field.type)]
    if column is None:
        return _choose(source.name, strings, list(schema.names))
    if column not in strings:
        raise DataError(
            f"{source.name} has no text column {column!r}; it has {', '.join(schema.names)}: "
            "name one with --column"
        )
    return column


def _read_parquet(source: Source, options: ReadOptions, on_bad: OnBad) -> Iterator[str]:
    with open_parquet(source) as file:
        column = document_column(source, file.schema_arrow, options)
        end = file.metadata.num_row_groups if source.end is None else source.end
        row = sum(file.metadata.row_group(group).num_rows for group in range(source.start))
        groups = list(range(source.start, end))
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[column], use_threads=False):
            values = batch.column(0)
            try:
                texts = values.to_pylist()
            except UnicodeDecodeError:
                texts = [_row_text(value) for value in values]
            for number, text in enumerate(texts, row):
                why = "not UTF-8" if text is BAD else ""
                if options.conversations and not why:
                    text, why = _conversation(text, column)
                if why:
                    on_bad(BadDocumentError(f"{source.name}, row {number:,}: {why}; mend it"))
                else:
                    yield text or ""
            row += len(values)


def _row_text(value: Any) -> Any:
    """A row's text, None for a null, BAD for what is not UTF-8."""
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return BAD


Reader = Callable[[Source, ReadOptions, OnBad], Iterator[str]]
# A format is a function here and a suffix in `source.KINDS`.
READERS: dict[str, Reader] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "pydoc": _read_pydoc,
    "pydoc-chat": _read_pydoc_chat,
}
