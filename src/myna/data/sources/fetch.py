"""Remote files, fetched ahead of the work and removed after it: the whole corpus is never on the disk at once.

A few files are on their way while the ones before them are encoded. Each is checked as it comes: its announced length,
its published hash where there is one, and that no web page came in its place.
"""

import contextlib
import itertools
import threading
import urllib.error
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from myna.data.sources.hub import fetch_from_hub
from myna.data.sources.source import Source
from myna.errors import DownloadError, first_line
from myna.files import download, sha256_file

FILES_AHEAD = 4
RETRY_S = 1.0
CLOSE_S = 0.5
WEB_PAGE = (b"<!doctype html", b"<html")


class Fetcher:
    """Keeps the next few remote files of a corpus coming.

    Args:
        files: the corpus, in order.
        folder: where they lie meanwhile.
        ahead: how many are fetched or kept at once.
    """

    def __init__(self, files: Sequence[Source], folder: Path, ahead: int = FILES_AHEAD) -> None:
        self._files = files
        self._folder = folder
        self._ahead = ahead
        self._coming: dict[int, Future[Path]] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._stopped = threading.Event()

    def get(self, number: int) -> Source:
        """File `number`, on this machine; waits for it, and starts the ones after it.

        Raises:
            DownloadError: it could not be fetched whole; see `attempts_for`.
        """
        for n in range(number, min(number + self._ahead, len(self._files))):
            if self._files[n].is_remote and n not in self._coming:
                self._coming[n] = Future()
                # Daemons: nobody should have to wait for two gigabytes after Ctrl-C.
                arguments = (n, self._coming[n])
                self._threads[n] = threading.Thread(
                    target=self._run, args=arguments, name="fetch", daemon=True
                )
                self._threads[n].start()
        file = self._files[number]
        return file.fetched(self._coming[number].result()) if number in self._coming else file

    def _run(self, number: int, future: "Future[Path]") -> None:
        try:
            future.set_result(self._fetch(number))
        except BaseException as error:  # for whoever asks for the file
            future.set_exception(error)

    def release_before(self, number: int) -> None:
        """Removes the fetched files before file `number`; an earlier call's too."""
        for path in self._folder.glob("[0-9]*"):
            if int(path.name.partition(".")[0]) < number:
                path.unlink()
        self._coming = {n: future for n, future in self._coming.items() if n >= number}
        self._threads = {n: thread for n, thread in self._threads.items() if n >= number}

    def _fetch(self, number: int) -> Path:
        file = self._files[number]
        suffix = "".join(Path(file.place.partition("?")[0]).suffixes[-2:])
        path = self._folder / f"{number:06d}{suffix}"
        if path.is_file():  # an earlier, interrupted call fetched it
            return path
        self._folder.mkdir(exist_ok=True)
        for attempt in itertools.count(1):
            try:
                fetch_file(file, path, self._check_stopped)
                break
            except DownloadError as error:
                if attempt >= attempts_for(error) or self._stopped.wait(RETRY_S * 4 ** (attempt - 1)):
                    raise
        return path

    def _check_stopped(self, received: int, total: int | None) -> None:
        if self._stopped.is_set():
            raise DownloadError("stopped")

    def close(self) -> None:
        """Ends the threads, or lets go of those that can't be stopped in a moment."""
        self._stopped.set()
        for thread in self._threads.values():
            thread.join(timeout=CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attempts_for(error: DownloadError) -> int:
    """How often a file is asked for that fails like this.

    A network comes back (1 + 4 + 16 + 64 seconds are waited for it). Wrong content may be chance, once. A request that
    is wrong, or a file that is not there, stays so.
    """
    cause = error.__cause__
    if cause is None:
        return 2
    if isinstance(cause, FileNotFoundError | PermissionError | ImportError | ValueError):
        return 1
    if isinstance(cause, urllib.error.HTTPError) and 400 <= cause.code < 500 and cause.code not in (408, 429):
        return 1
    return 5


def fetch_file(file: Source, path: Path, on_bytes: Callable[[int, int | None], None]) -> None:
    """Fetches one file to `path`, checked, or leaves nothing there.

    Args:
        on_bytes: told of bytes so far and in all, by downloads that can; may raise to stop them.
    Raises:
        DownloadError: no connection, cut short, another file than the published one, or a web page in its place.
    """
    temporary = path.with_name("." + path.name)
    try:
        if file.repository is not None:
            fetch_from_hub(file, temporary)
        elif file.place.startswith(("http://", "https://")):
            download(file.place, temporary, sha256=file.sha256, on_bytes=on_bytes)
        else:
            _fetch_object(file.place, temporary)
        _check(file, temporary)
        temporary.rename(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _fetch_object(place: str, path: Path) -> None:
    """Fetches from an object store by fsspec."""
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(place)
        filesystem.get_file(inner, str(path))
        expected = filesystem.size(inner)
    except ImportError as error:
        raise DownloadError(f"cannot read {place}: {error}; install it and run again") from error
    except Exception as error:  # each store has its own errors
        raise DownloadError(f"cannot download {place}: {first_line(error)}; check the address") from error
    if expected is not None and path.stat().st_size != expected:
        raise DownloadError(f"{place}: {path.stat().st_size} of {expected} bytes came; try again")


def _check(file: Source, path: Path) -> None:
    size = path.stat().st_size
    if file.n_bytes is not None and size != file.n_bytes:
        raise DownloadError(f"{file.name}: {size:,} of {file.n_bytes:,} bytes came; try again")
    with open(path, "rb") as opened:
        head = opened.read(512).lstrip().lower()
    if head.startswith(WEB_PAGE):
        raise DownloadError(f"{file.name}: a web page came in its place; log in, or check the address")
    if file.sha256 is not None and sha256_file(path) != file.sha256:
        raise DownloadError(f"{file.name}: not the published file, its SHA-256 differs; try again")
