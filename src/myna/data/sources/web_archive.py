"""Web archives, Common Crawl's above all: a document a record.

WET files hold text: their `conversion` records. WARC files hold what servers sent: their `response` records. Of those,
HTML pages with status 200 are read. The reader passes over all other records, and over records longer than 64 MiB.

FastWARC parses a record, and Resiliparse makes text of HTML: the main content, without menus and footers. FastWARC ends
at a damaged record, and takes a file that was cut short for a whole one. So this file finds where a record begins and
ends. It checks the length of each record, the checksum of its gzip member, and its digest if it has one. After a
damaged record the reading goes on at the next place where one begins.

Source: ISO 28500 (WARC 1.1), RFC 1952 (gzip). The DataComp-LM paper (arXiv:2406.11794) compares ways to extract text
from Common Crawl's HTML: Resiliparse gives text as good as trafilatura's, and is several times faster.
"""

import io
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

from myna.data.sources.reading import BadDocumentError, Skips
from myna.data.sources.row_filter import KindError, RowFilter
from myna.data.sources.source import ReadOptions, Source
from myna.errors import DataError

GZIP_MEMBER = b"\x1f\x8b\x08"
VERSION = b"WARC/1."
RECORD_END = b"\r\n\r\n"
HEADER_BYTES = 1 << 16
RECORD_BYTES = 64 << 20
BLOCK_BYTES = 1 << 16
# Little at first: what zlib found before an error in the same piece is lost, and it says whether this is a record.
FIRST_PIECE_BYTES = 256
LENGTH = re.compile(rb"^content-length:[ \t]*([0-9]{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
WANTED = re.compile(rb"^warc-type:[ \t]*(conversion|response)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
DIGESTS = ("sha1:", "sha256:", "sha512:", "md5:")
PAGES = ("text/html", "application/xhtml+xml")
# The columns that --where can ask for, and the headers that hold them.
COLUMNS = {"url": "WARC-Target-URI", "date": "WARC-Date", "language": "WARC-Identified-Content-Language"}
Records = Generator[tuple[int, bytes], None, int]


class DamagedError(ValueError):
    """A record that is not whole. `is_record`: it began as one."""

    def __init__(self, is_record: bool = True) -> None:
        super().__init__()
        self.is_record = is_record


def read_archive(source: Source, options: ReadOptions, skips: Skips) -> Iterator[str]:
    """The documents of a WARC or WET file. See `read_texts`.

    Raises:
        DataError: the libraries are not installed, or no record in the file is sound.
    """
    _require_libraries(source)
    n_sound = 0

    def damage(start: int) -> None:
        skips.damage(f"{source.name}, byte {start:,}")

    with open(source.place, "rb", buffering=1 << 20) as file:
        for start, raw in sound_records(file, source.compression == "gz", damage):
            n_sound += 1
            if raw:
                try:
                    text = _document(raw, options, skips)
                except UnicodeDecodeError:
                    skips.bad(
                        BadDocumentError(f"{source.name}, record at byte {start:,}: not UTF-8; mend it")
                    )
                except (OSError, ValueError):
                    damage(start)
                else:
                    if text is not None:
                        yield text
        if not n_sound and file.seek(0, io.SEEK_END):
            raise DataError(f"{source.name} holds no sound WARC record; fetch it again")


def _require_libraries(source: Source) -> None:
    if source.compression == "zst":
        raise DataError(
            f"{source.name}: web archives are read as .gz or uncompressed; decompress it with zstd -d"
        )
    try:
        import fastwarc  # noqa: F401
        import resiliparse  # noqa: F401
    except ImportError as error:
        raise DataError(f"{source.name}: web archives need resiliparse: pip install 'myna[web]'") from error


def require_headers(source: Source, where: RowFilter) -> None:
    """Raises DataError unless a filter asks only for what is known of a record."""
    for column in where.columns:
        if str(column) not in COLUMNS:
            raise DataError(
                f"{source.name} has no column {column}, which --where names; a web archive has {', '.join(COLUMNS)}"
            )
    try:
        where.keeps(dict.fromkeys(COLUMNS, ""))
    except KindError as error:
        raise DataError(f"{source.name}: {error}; change --where") from error


def sound_records(
    file: IO[bytes], is_gzip: bool, damage: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """The records of an archive that are whole, in order.

    Args:
        damage: told where each damaged record begins. Neighbours may count as one.
    Yields:
        (where the record or its gzip member begins, the record); an empty one where it is passed over.
    """
    size = file.seek(0, io.SEEK_END)
    records, mark = (_of_member, GZIP_MEMBER) if is_gzip else (_of_file, VERSION)
    start = 0
    is_expected = True  # a record should begin here; elsewhere the mark may be chance
    while 0 <= start < size:
        try:
            start = yield from records(file, start)
            is_expected = True
        except DamagedError as error:
            if is_expected or error.is_record:
                damage(start)
            is_expected = False
            start = _find(file, mark, start + 1)


def _of_file(file: IO[bytes], start: int) -> Records:
    """The record that begins at a byte of an uncompressed file; returns where it ends."""
    file.seek(start)
    record = _read_record(file)
    if record is not None:
        yield start, record
    return file.tell()


def _of_member(file: IO[bytes], start: int) -> Records:
    """The records of a gzip member, mostly one; returns where the member ends. The last waits for the checksum."""
    member = GzipMember(file, start)
    stream = io.BufferedReader(member, BLOCK_BYTES)
    held: bytes | None = None
    try:
        while (record := _read_record(stream)) is not None:
            if held is not None:
                yield start, held
            held = record
    except (EOFError, zlib.error) as error:
        raise DamagedError(is_record=held is not None) from error
    if held is not None:
        yield start, held
    return member.end


class GzipMember(io.RawIOBase):
    """The content of one gzip member of a file.

    Raises (when read):
        EOFError: the file ends in it.
        zlib.error: it is damaged.
    """

    def __init__(self, file: IO[bytes], start: int) -> None:
        file.seek(start)
        self._file, self._read_to = file, start
        self._piece_bytes = FIRST_PIECE_BYTES
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)

    @property
    def end(self) -> int:
        """Where in the file it ended, once all is read."""
        return self._read_to - len(self._inflate.unused_data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflate.eof:
            data = self._inflate.unconsumed_tail
            if not data:
                data = self._file.read(self._piece_bytes)
                self._piece_bytes = min(2 * self._piece_bytes, BLOCK_BYTES)
                self._read_to += len(data)
                if not data:
                    raise EOFError("it ends inside a gzip member")
            content = self._inflate.decompress(data, len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)
        return 0


def _read_record(stream: IO[bytes]) -> bytes | None:
    """The next record of a stream; b"" for one that is passed over, None at the end.

    Raises:
        DamagedError: it is not whole.
        EOFError, zlib.error: the stream is damaged before it.
    """
    line = stream.readline(HEADER_BYTES)
    while line in (b"\r\n", b"\n"):
        line = stream.readline(HEADER_BYTES)
    if not line:
        return None
    if not line.startswith(VERSION):
        raise DamagedError(is_record=False)
    try:
        header = line
        while line.strip():
            line = stream.readline(HEADER_BYTES)
            header += line
            if not line or len(header) > HEADER_BYTES:
                raise DamagedError
        found = LENGTH.search(header)
        if found is None:
            raise DamagedError
        n_bytes = int(found[1])
        is_wanted = WANTED.search(header) is not None and n_bytes <= RECORD_BYTES
        block = _read_block(stream, n_bytes, is_wanted)
        if stream.read(len(RECORD_END)) != RECORD_END:
            raise DamagedError
    except (EOFError, zlib.error) as error:
        raise DamagedError from error
    return header + block + RECORD_END if is_wanted else b""


def _read_block(stream: IO[bytes], n_bytes: int, is_wanted: bool) -> bytes:
    """Reads what follows a header, by pieces: a damaged length may be any number."""
    pieces = []
    while n_bytes:
        piece = stream.read(min(n_bytes, 1 << 20))
        if not piece:
            raise DamagedError
        n_bytes -= len(piece)
        if is_wanted:
            pieces.append(piece)
    return b"".join(pieces)


def _find(file: IO[bytes], mark: bytes, start: int) -> int:
    """Where some bytes come next, from a place on; -1 where they don't."""
    file.seek(start)
    before = b""
    while block := file.read(1 << 20):
        at = (before + block).find(mark)
        if at >= 0:
            return start - len(before) + at
        start += len(block)
        before = block[1 - len(mark) :]
    return -1


def _document(raw: bytes, options: ReadOptions, skips: Skips) -> str | None:
    """The document of a record; None where it is none, or --where leaves it out.

    Raises:
        UnicodeDecodeError: its text is not UTF-8.
        OSError, ValueError: the record or its HTTP headers can't be parsed, or its digest differs.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    record = next(iter(ArchiveIterator(io.BytesIO(raw), parse_http=False)))
    digest = record.headers.get("WARC-Block-Digest") or ""
    if digest.lower().startswith(DIGESTS) and not record.verify_block_digest():
        raise DamagedError
    is_text = record.record_type == WarcRecordType.conversion
    if not is_text:
        if not record.is_http:
            return None
        record.parse_http(auto_decode="all")
        if record.http_headers.status_code != 200 or record.http_content_type not in PAGES:
            return None
    columns = {name: record.headers.get(key) for name, key in COLUMNS.items()}
    if options.where is not None and not options.where.keeps(columns):
        skips.filtered += 1
        return None
    data = record.reader.read()
    return data.decode("utf-8") if is_text else _text_of_page(data, record.http_charset)


def _text_of_page(data: bytes, charset: str | None) -> str:
    """The main text of an HTML page. Its encoding is the server's word, or the page's, or a guess."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
    from resiliparse.parse.html import HTMLTree

    encoding = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    tree = HTMLTree.parse_from_bytes(
        data, encoding or detect_encoding(data, from_html_meta=True) or "utf-8", "replace"
    )
    return extract_plain_text(tree, main_content=True)
