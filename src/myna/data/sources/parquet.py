"""Parquet: a document a row. Memory: one batch of rows, or one row group where it was written as one page."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from myna.data.sources.columns import conversation_column, conversation_document, text_column
from myna.data.sources.reading import BadDocumentError, Skips
from myna.data.sources.row_filter import KindError, RowFilter
from myna.data.sources.row_filter_arrow import ArrowFilter, column_names, type_of
from myna.data.sources.source import ReadOptions, Source
from myna.errors import DataError, first_line

BATCH_ROWS = 512
PARQUET_MAGIC = b"PAR1"
BAD = object()


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
        column = column or conversation_column(source.name, names)
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
        return text_column(source.name, strings, list(schema.names))
    if column not in strings:
        raise DataError(
            f"{source.name} has no text column {column!r}; it has {', '.join(schema.names)}: "
            "name one with --column"
        )
    return column


def read_parquet(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    """The documents of a file, or of a part of it. See `read_texts`."""
    with open_parquet(source) as file:
        column = document_column(source, file.schema_arrow, options)
        columns, where = [column], None
        if options.where is not None:
            where = arrow_filter(source, file.schema_arrow, options.where)
            columns += [str(asked) for asked in options.where.columns if asked.path[0] != column]
        end = file.metadata.num_row_groups if source.end is None else source.end
        groups = list(range(source.start, end))
        read = where.matching_groups(source.place, groups) if where is not None else groups
        row = sum(file.metadata.row_group(group).num_rows for group in range(source.start))
        for group in groups:
            n_rows = file.metadata.row_group(group).num_rows
            if group not in read:
                skips.filtered += n_rows
                row += n_rows
                continue
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
            ):
                values, numbers = batch.column(column), range(row, row + len(batch))
                if where is not None:
                    kept = where.keeps(batch)
                    values, numbers = values.take(kept), kept + row
                    skips.filtered += len(batch) - len(kept)
                row += len(batch)
                yield from _documents(source, column, options, skips, values, numbers)


def _documents(
    source: Source, column: str, options: ReadOptions, skips: Skips, values: Any, numbers: Iterable[int]
) -> Iterator[str]:
    """The documents of some rows.

    Args:
        values: of the document column, a pyarrow array.
        numbers: of the rows in the file, for messages.
    """
    try:
        texts = values.to_pylist()
    except UnicodeDecodeError:
        texts = [_row_text(value) for value in values]
    for number, text in zip(numbers, texts, strict=True):
        why = "not UTF-8" if text is BAD else ""
        if options.conversations and not why:
            text, why = conversation_document(text, column)
        if why:
            skips.bad(BadDocumentError(f"{source.name}, row {number:,}: {why}; mend it"))
        else:
            yield text or ""


def require_columns(source: Source, where: RowFilter) -> None:
    """Raises DataError unless a file has the columns of a filter, and they can be compared as it does."""
    with open_parquet(source) as file:
        arrow_filter(source, file.schema_arrow, where)


def arrow_filter(source: Source, schema: Any, where: RowFilter) -> ArrowFilter:
    """The filter for a file's rows.

    Raises:
        DataError: see `require_columns`.
    """
    for column in where.columns:
        if type_of(column, schema) is None:
            raise DataError(
                f"{source.name} has no column {column}, which --where names; it has {', '.join(column_names(schema))}"
            )
    try:
        return ArrowFilter(where, schema)
    except KindError as error:
        raise DataError(f"{source.name}: {error}; change --where") from error


def _row_text(value: Any) -> Any:
    """A row's text, None for a null, BAD for what is not UTF-8."""
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return BAD
