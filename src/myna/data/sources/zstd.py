"""Reads .zst files, and sees when one is cut short: zstandard's own reader takes a truncated file for a whole one."""

import io
from typing import Any, BinaryIO

import zstandard

BLOCK_BYTES = 1 << 20


class ZstdFrames(io.RawIOBase):
    """The decompressed bytes of a file of zstd frames, one after the other.

    Raises (when read):
        EOFError: the file ends inside a frame.
        OSError: it is no zstd, or damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._file.read(BLOCK_BYTES)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends inside a zstd frame")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                self._output = memoryview(self._frame.decompress(self._input))
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from error
            self._input = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count


def zstd_reader(file: BinaryIO) -> io.BufferedReader:
    """A buffered reader of a .zst file's content."""
    return io.BufferedReader(ZstdFrames(file), BLOCK_BYTES)
