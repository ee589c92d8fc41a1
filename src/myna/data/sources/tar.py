"""Reads the JSONL files in a tar file as one: OpenWebText2 comes as `openwebtext2.jsonl.zst.tar`, a file a month."""

import gzip
import io
import tarfile
from collections.abc import Iterator
from typing import IO, Any, cast

from myna.data.sources.source import kind_of
from myna.data.sources.zstd import BLOCK_BYTES, zstd_reader


class TarLines(io.RawIOBase):
    """The lines of a tar file's JSONL files (also .gz and .zst), in the order in which they stand in it.

    Raises (when read):
        OSError, EOFError: it is no tar file, or it or a file in it is damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._pieces = _pieces(file)
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            self._piece = self._piece or memoryview(next(self._pieces, b""))
        except tarfile.TarError as error:
            raise OSError(str(error)) from error
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The content in pieces, none of them empty. A file without a newline at its end gets one."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            kind, compression = kind_of(member.name) or ("", "")
            opened = archive.extractfile(member) if member.isfile() and kind == "jsonl" else None
            if opened is None:
                continue
            lines = opened
            if compression == "gz":
                lines = cast(IO[bytes], gzip.GzipFile(fileobj=opened))
            elif compression == "zst":
                lines = zstd_reader(cast(Any, opened))
            last = b"\n"
            while piece := lines.read(BLOCK_BYTES):
                yield piece
                last = piece[-1:]
            if last != b"\n":
                yield b"\n"


def tar_reader(file: IO[bytes]) -> io.BufferedReader:
    """A buffered reader of the lines. See `TarLines`."""
    return io.BufferedReader(TarLines(file), BLOCK_BYTES)
