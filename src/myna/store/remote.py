"""A place on another store: what lies in it, and its files fetched one by one, each whole and verified, or absent."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from myna.errors import DownloadError, MynaError
from myna.files import sha256_bytes, sha256_file, sync_file
from myna.progress import Progress
from myna.store.address import connect, reason, without_secrets

TRIES = 3
# Seconds before the second try; four times as many before the next.
FIRST_WAIT_S = 1.0
# The store's answer, or this machine's disk: a second try would end like the first.
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class DamagedError(DownloadError):
    """A file of a store that is not the file it should be."""


@dataclass(frozen=True)
class Entry:
    """What a listing says of a file or folder. Where a file changes, its stamp does: size, time, ETag."""

    n_bytes: int | None
    is_folder: bool
    stamp: str


@dataclass(frozen=True)
class Wanted:
    """A file to be fetched: its name below the place, and what it must be. None: nobody knows."""

    name: str
    n_bytes: int | None = None
    sha256: str | None = None


class Remote:
    """A folder, or one file, of a store.

    Args:
        url: such as s3://BUCKET/FOLDER.
    Raises:
        UsageError: no such kind of URL, or its library is missing. DownloadError: the store can't be reached.
    """

    def __init__(self, url: str):
        self.url = without_secrets(url).rstrip("/")
        with self._asking(""):
            self.store, self.root = connect(url)

    def below(self, name: str) -> Self:
        """A folder in this one."""
        one = object.__new__(type(self))
        one.url, one.store, one.root = f"{self.url}/{name}", self.store, self._path(name)
        return one

    @property
    def name(self) -> str:
        """The last part of the address, as a file's name.

        >>> Remote("memory://runs/gpt2 124m/").name
        'gpt2 124m'
        """
        last = PurePosixPath(self.url.rpartition("://")[2]).name
        return last if last not in ("", "..") else "root"

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    @contextlib.contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        place = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except MynaError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DownloadError(f"no space for {place}: {reason(error)}; free some space") from error
            raise DownloadError(self._said(place, error)) from error
        except Exception as error:  # each store raises its own library's errors
            raise DownloadError(self._said(place, error)) from error

    def _said(self, place: str, error: Exception) -> str:
        if isinstance(error, FileNotFoundError):
            return f"there is nothing at {place}; check the address"
        return f"cannot read {place} ({reason(error)}); check the address, your keys and the network"

    def list(self) -> dict[str, Entry]:
        """What lies in the folder, by name; {} where there is no such folder. The store is asked anew each time.

        Raises:
            DownloadError: the store can't be asked.
        """
        with self._asking(""):
            self.store.invalidate_cache()
            try:
                found = self.store.ls(self.root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return {
                PurePosixPath(info["name"].rstrip("/")).name: _entry(info)
                for info in found
                # Some stores keep an empty object under the folder's own name.
                if info["name"].rstrip("/") != self.root.rstrip("/") or info["type"] == "file"
            }

    def all_files(self) -> dict[str, Entry]:
        """The files in the folder and below it, by their names below the place; one file alone is named "".

        Raises:
            DownloadError: nothing is there, or the store can't be asked.
        """
        with self._asking(""):
            self.store.invalidate_cache()
            found = self.store.find(self.root, detail=True)
            if not found:
                raise FileNotFoundError
            start = len(self.root.rstrip("/"))
            return {
                path[start:].strip("/"): _entry(info)
                for path, info in found.items()
                if info["type"] == "file"
            }

    def read(self, name: str) -> bytes | None:
        """A small file's content; None where there is none.

        Raises:
            DownloadError: it can't be read.
        """
        with self._asking(name):
            self.store.invalidate_cache()
            try:
                return self.store.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def fetch(self, wanted: Sequence[Wanted], into: Path) -> None:
        """Fetches files into a folder, each whole or not at all, flushed to the disk.

        Raises:
            DamagedError: a file has another size or hash than it should, twice.
            DownloadError: it is not there or can't be read, or has a name that leads out of the folder.
        """
        for one in wanted:
            if ".." in PurePosixPath(one.name).parts or one.name.startswith("/") or "\\" in one.name:
                raise DownloadError(
                    f"{self.url} lists a file called {one.name!r}, which would lie outside of its folder; give another "
                    "address"
                )
        known = [one.n_bytes for one in wanted if one.n_bytes is not None]
        total = sum(known) if len(known) == len(wanted) else None
        with Progress(f"fetching {self.url}", total, counted=False, shown=bool(wanted)) as progress:
            for one in wanted:
                self._fetch(one, into / (one.name or self.name), progress)

    def _fetch(self, wanted: Wanted, target: Path, progress: Progress) -> None:
        # One name, since one process fetches at a time: what a killed one left is written over.
        temporary = target.with_name(f".{target.name}.part")
        before, wait, tried = progress.done, FIRST_WAIT_S, 0
        while True:
            tried += 1
            try:
                with self._asking(wanted.name):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self.store.get_file(
                        self._path(wanted.name), str(temporary), callback=_told(progress.advance)
                    )
                    progress.update(before + temporary.stat().st_size)
                    self._check(wanted, temporary)
                    sync_file(temporary)
                    os.replace(temporary, target)
                return
            except DownloadError as error:
                progress.update(before)
                if tried == _tries_for(error):
                    raise
                time.sleep(wait)
                wait *= 4
            finally:
                temporary.unlink(missing_ok=True)

    def _check(self, wanted: Wanted, path: Path) -> None:
        size, place = path.stat().st_size, f"{self.url}/{wanted.name}".rstrip("/")
        if wanted.n_bytes is not None and size != wanted.n_bytes:
            raise DamagedError(
                f"{place} is damaged: {size:,} of {wanted.n_bytes:,} bytes came; copy it there again"
            )
        if wanted.sha256 is not None and sha256_file(path) != wanted.sha256:
            raise DamagedError(f"{place} is damaged: its SHA-256 is not the one stated; copy it there again")


def _tries_for(error: DownloadError) -> int:
    """How often a file is asked for that fails like this. Wrong content may be chance, once."""
    if isinstance(error, DamagedError):
        return 2
    no_space = getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return 1 if no_space or isinstance(error.__cause__, FINAL) else TRIES


def _entry(info: dict[str, Any]) -> Entry:
    return Entry(info.get("size"), info["type"] == "directory", sha256_bytes(str(info).encode()))


def _told(advance: Callable[[int], None]) -> Any:
    """What fsspec tells of the bytes that came."""
    from fsspec.callbacks import Callback

    class Told(Callback):
        def relative_update(self, inc: int = 1) -> None:
            advance(inc)

    return Told()
