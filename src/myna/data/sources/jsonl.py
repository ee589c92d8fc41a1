"""JSONL: a document a line."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from myna.data.conversations import FIELDS
from myna.data.sources.columns import COLUMNS, conversation_column, conversation_document, text_column
from myna.data.sources.reading import BadDocumentError, Skips, open_bytes
from myna.data.sources.row_filter import KindError, RowFilter
from myna.data.sources.source import ReadOptions, Source
from myna.errors import DataError
from myna.parsing import parse_json

# A field that none of so many first rows has is a mistake in --where, not a missing value.
ROWS_ASKED = 1000


def read_jsonl(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    """The documents of a file, or of a part of it. See `read_texts`."""
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
                if why:
                    line_number = number if number is not None else _line_number(source, at)
                    skips.bad(BadDocumentError(f"{source.name}, line {line_number:,}: {why}; mend it"))
                elif text is None:
                    skips.filtered += 1
                else:
                    yield text
            at += len(line)


def _document_of_line(line: bytes, column: str, options: ReadOptions) -> tuple[str | None, str]:
    """A JSONL line's document, or None and what is wrong; (None, "") where --where leaves the row out."""
    try:
        value = parse_json(line)
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start:,} of the line"
    except ValueError:
        return None, "not JSON"
    if options.where is not None and isinstance(value, dict):
        try:
            if not options.where.keeps(value):
                return None, ""
        except KindError as error:
            return None, str(error)
    found = value.get(column) if isinstance(value, dict) else None
    if options.conversations:
        return conversation_document(found, column)
    if not isinstance(found, str):
        return None, f"no text in a field {column!r}"
    try:
        found.encode("utf-8")
    except UnicodeEncodeError:
        return None, "a lone surrogate, which is no character"
    return found, ""


def _line_number(source: Source, at: int) -> int:
    """Counts the lines before a byte; asked only when there is an error to report."""
    count = 1
    with open(source.place, "rb") as file:
        while at > 0 and (block := file.read(min(at, 1 << 20))):
            count += block.count(b"\n")
            at -= len(block)
    return count


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    """The lines that are objects."""
    with open_bytes(source) as file:
        for line in file:
            try:
                value = parse_json(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _jsonl_field(source: Source, options: ReadOptions) -> str:
    """The field that holds the text: `text`, `content`, or the only string in the first line that is an object.

    Of conversations: `messages` or `conversations`.
    """
    for row in _rows(source):
        if options.conversations:
            return conversation_column(source.name, list(row))
        return text_column(source.name, [key for key in row if isinstance(row[key], str)], list(row))
    return FIELDS[0] if options.conversations else COLUMNS[0]


def require_fields(source: Source, where: RowFilter) -> None:
    """Raises DataError unless the first rows of a file have the fields of a filter. No row has to have all."""
    missing = dict.fromkeys(where.columns)
    names: dict[str, None] = {}
    for row in islice(_rows(source), ROWS_ASKED):
        for column in tuple(missing):
            if column.is_in(row):
                del missing[column]
        if not missing:
            return
        for name, value in row.items():
            inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
            names |= dict.fromkeys(inner)
    if names:
        raise DataError(
            f"{source.name} has no column {next(iter(missing))}, which --where names; it has {', '.join(names)}"
        )
