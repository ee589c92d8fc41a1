"""Files to documents: a segment of a file is read as a stream of texts.

A text file is one document, a JSONL line one, a parquet row one. What cannot be read is a `BadDocumentError`, which
names file and line: raised, or, with --skip-bad, counted. Memory: one document, or one batch of rows.
"""

import contextlib
import dataclasses
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from myna.data.pydoc import pydoc_documents
from myna.errors import DataError

BATCH_ROWS = 512
COLUMNS = ("text", "content")
PARQUET_MAGIC = b"PAR1"
BAD = object()


class BadDocumentError(DataError):
    """One document that can't be used: not JSON, without the text field, not UTF-8."""


OnBad = Callable[[BadDocumentError], None]


@dataclass(frozen=True)
class Segment:
    """A stretch of one file.

    Attributes:
        name: what messages call the file. path: where it lies.
        kind, compression: as in `SourceFile`.
        start, end: bytes (text, jsonl) or row groups (parquet); None for the rest of the file.
        column: the text column or field; None to find it.
        single: the one document of the corpus, whose last part is validation.
        split: "train" or "val" where that is known; None to ask each document's hash.
        begins: False for a later stretch of a document that began in another segment.
    """

    name: str
    path: str
    kind: str
    compression: str = ""
    start: int = 0
    end: int | None = None
    column: str | None = None
    single: bool = False
    split: str | None = None
    begins: bool = True

    def part(self, start: int, end: int, split: str | None = None, begins: bool = True) -> "Segment":
        """A stretch of this segment's file."""
        return dataclasses.replace(self, start=start, end=end, split=split, begins=begins)


def hash_is_below(digest: bytes, fraction: float) -> bool:
    """Whether a document with this 8-byte hash falls to validation."""
    return int.from_bytes(digest, "big") < int(fraction * 2**64)


def read_segment(segment: Segment, on_bad: OnBad) -> Iterator[str]:
    """The segment's documents, in order, empty ones too.

    Args:
        on_bad: told of each document that can't be used; it may raise.
    Raises:
        DataError: the file is missing, or not what its name says.
    """
    readers = {"text": _read_text, "jsonl": _read_jsonl, "parquet": _read_parquet, "pydoc": _read_pydoc}
    try:
        yield from readers[segment.kind](segment, on_bad)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"cannot read {segment.name}: {error.strerror}") from error
        raise DataError(f"{segment.name} is cut short or damaged ({error}); fetch it again") from error


def _read_pydoc(segment: Segment, on_bad: OnBad) -> Iterator[str]:
    yield from pydoc_documents()


@contextlib.contextmanager
def _open(segment: Segment) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed."""
    with open(segment.path, "rb") as file:
        if segment.compression == "gz":
            with gzip.open(file) as inner:
                yield cast(IO[bytes], inner)
        elif segment.compression == "zst":
            from myna.data.zstd import zstd_reader

            yield zstd_reader(file)
        else:
            yield file


def _read_text(segment: Segment, on_bad: OnBad) -> Iterator[str]:
    with _open(segment) as file:
        if segment.start:
            file.seek(segment.start)
        data = file.read() if segment.end is None else file.read(segment.end - segment.start)
    try:
        yield data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        at = f"byte {segment.start + error.start:,}" + ("" if segment.start else f" (line {line:,})")
        if segment.split is not None:
            raise DataError(
                f"{segment.name} is not UTF-8 at {at}; a document this large is used whole, so convert it"
            ) from error
        on_bad(
            BadDocumentError(
                f"{segment.name} is not UTF-8 at {at}; convert it, or leave it out with --skip-bad"
            )
        )


def _read_jsonl(segment: Segment, on_bad: OnBad) -> Iterator[str]:
    with _open(segment) as file:
        column = segment.column or _jsonl_field(segment)
        number: int | None = 0
        if segment.start:
            file.seek(segment.start - 1)
            file.readline()  # the line that holds the byte before us belongs to the segment before us
            number = None
        at = file.tell() if segment.end is not None else 0
        while segment.end is None or at < segment.end:
            line = file.readline()
            if not line:
                return
            number = None if number is None else number + 1
            if line.strip():
                text, why = _text_of_line(line, column)
                if text is None:
                    where = number if number is not None else _line_number(segment, at)
                    on_bad(
                        BadDocumentError(
                            f"{segment.name}, line {where:,}: {why}; mend it, or leave it out with --skip-bad"
                        )
                    )
                else:
                    yield text
            at += len(line)


def _text_of_line(line: bytes, column: str) -> tuple[str | None, str]:
    """A JSONL line's text, or None and what is wrong."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start:,} of the line"
    except (ValueError, RecursionError):
        return None, "not JSON"
    if not isinstance(value, dict) or not isinstance(value.get(column), str):
        return None, f"no text in a field {column!r}"
    text = value[column]
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return None, "a lone surrogate, which is no character"
    return text, ""


def _line_number(segment: Segment, at: int) -> int:
    """Counts the lines before a byte; asked only when there is an error to report."""
    count = 1
    with open(segment.path, "rb") as file:
        while at > 0 and (block := file.read(min(at, 1 << 20))):
            count += block.count(b"\n")
            at -= len(block)
    return count


def _jsonl_field(segment: Segment) -> str:
    """The field that holds the text: `text`, `content`, or the only string in the first line that is an object."""
    with _open(segment) as file:
        for line in file:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                return _choose(
                    segment.name, [key for key in value if isinstance(value[key], str)], list(value)
                )
    return COLUMNS[0]


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
    raise DataError(
        f"{name}: which column holds the text? It has {', '.join(all_names) or 'none'}; name one with --column"
    )


@contextlib.contextmanager
def open_parquet(segment: Segment) -> Iterator[Any]:
    """A pyarrow ParquetFile.

    Raises:
        DataError: it is no parquet file, or a damaged one.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with open(segment.path, "rb") as file:
            head = file.read(64)
        if not head.startswith(PARQUET_MAGIC):
            shown = head[:40].decode("utf-8", errors="replace").split("\n")[0]
            raise DataError(f"{segment.name} is no parquet file (it begins with {shown!r}); fetch it again")
        with pyarrow.parquet.ParquetFile(segment.path, pre_buffer=False) as parquet:
            yield parquet
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"cannot read {segment.name}: {error.strerror}") from error
        detail = " ".join(str(error).split())
        raise DataError(f"{segment.name} is cut short or damaged ({detail}); fetch it again") from error


def text_column(segment: Segment, schema: Any) -> str:
    """The name of a parquet file's text column.

    Raises:
        DataError: it has no such column, or several that could be.
    """
    import pyarrow.types as types

    def is_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view))

    strings = [field.name for field in schema if is_text(field.type)]
    if segment.column is None:
        return _choose(segment.name, strings, list(schema.names))
    if segment.column not in strings:
        raise DataError(
            f"{segment.name} has no text column {segment.column!r}; it has {', '.join(schema.names)}: "
            "name one with --column"
        )
    return segment.column


def _read_parquet(segment: Segment, on_bad: OnBad) -> Iterator[str]:
    with open_parquet(segment) as file:
        column = text_column(segment, file.schema_arrow)
        end = file.metadata.num_row_groups if segment.end is None else segment.end
        row = sum(file.metadata.row_group(group).num_rows for group in range(segment.start))
        groups = list(range(segment.start, end))
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[column], use_threads=False):
            values = batch.column(0)
            try:
                texts = values.to_pylist()
            except UnicodeDecodeError:
                texts = [_row_text(value) for value in values]
            for number, text in enumerate(texts, row):
                if text is BAD:
                    where = f"{segment.name}, row {number:,}"
                    on_bad(BadDocumentError(f"{where}: not UTF-8; mend it, or leave it out with --skip-bad"))
                else:
                    yield text or ""
            row += len(values)


def _row_text(value: Any) -> Any:
    """A row's text, None for a null, BAD for what is not UTF-8."""
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return BAD
