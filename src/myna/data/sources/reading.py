"""What every reader needs: a file's bytes, errors that name the file, and a count of what is left out."""

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from typing import IO, cast

from myna.data.sources.source import Source
from myna.errors import DataError


class BadDocumentError(DataError):
    """One document that can't be used: not JSON, without the text field, not UTF-8. `prepare` can skip it."""


class Skips:
    """What readers leave out of a corpus. Here a bad document ends the reading.

    Attributes:
        filtered: rows that --where leaves out.
        damaged, first_damaged: damaged records of web archives, and where the first one is.
    """

    def __init__(self) -> None:
        self.filtered = self.damaged = 0
        self.first_damaged: str | None = None

    def bad(self, error: BadDocumentError) -> None:
        """Told of each document that can't be used; it may raise."""
        raise error

    def damage(self, where: str) -> None:
        """Told of each damaged record."""
        self.damaged += 1
        self.first_damaged = self.first_damaged or where


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
    """The file's bytes, decompressed; of a tar file, those of the JSONL files in it."""
    with open(source.place, "rb") as file:
        if source.compression == "gz":
            with gzip.open(file) as inner:
                yield cast(IO[bytes], inner)
        elif source.compression == "zst":
            from myna.data.sources.zstd import zstd_reader

            yield zstd_reader(file)
        elif source.compression == "tar":
            from myna.data.sources.tar import tar_reader

            yield tar_reader(file)
        else:
            yield file
