"""Files that are either whole or absent: atomic writes, hashes, verified downloads, safetensors.

Every write goes to a temporary sibling, is flushed to the disk, and is renamed into place, so a reader (or a
crash) never meets half a file. The safetensors writer is ours for the same reason: each of its writes can be
synced, and its errors seen.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from myna.errors import DownloadError, OutputError, UnreadableError
from myna.paths import said_of_link

CHUNK_BYTES = 1 << 20
WRITE_BYTES = 16 << 20
# More than a file system keeps beside a file's name: on a full disk, or over a quota, they find no place.
PROBE_BYTES = 4096
# What the system says where nothing is, or something of another kind.
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def cache_folder() -> Path:
    """The user's cache for this project: $XDG_CACHE_HOME/myna or ~/.cache/myna; for who has no home, in /tmp."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # what the specification of XDG_CACHE_HOME wants ignored
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            base = Path(tempfile.gettempdir()) / f"cache-of-{os.getuid()}"
    return base / "myna"


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str, before_piece: Callable[[], None] | None = None) -> str:
    """The SHA-256 of a file's content, read in pieces.

    Args:
        before_piece: called before each; it may raise to end the work.
    """
    with open(path, "rb", buffering=0) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        digest, piece = hashlib.sha256(), memoryview(bytearray(min(n_bytes + 1, CHUNK_BYTES)))
        while True:
            if before_piece:
                before_piece()
            if not (count := file.readinto(piece)):
                return digest.hexdigest()
            digest.update(piece[:count])


def json_bytes(value: Any) -> bytes:
    """JSON as this project writes it: UTF-8, two-space indent, a final newline, keys in the order given."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def is_named(path: Path) -> bool:
    """Whether a folder has that name, also where it is a link that leads nowhere: only what is not named is absent.

    Raises:
        OSError: the system doesn't tell.
    """
    try:
        os.lstat(path)
    except NOT_THERE:
        return False
    return True


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """The block reads one file or folder. That it can't be read is another thing than damage or absence.

    Raises:
        UnreadableError: it is there, or behind a link that leads nowhere, and the system does not give it.
        OSError: nothing is there, or something of another kind: one of `NOT_THERE`.
    """
    with contextlib.suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # it would be waited for, or read without end
            raise UnreadableError(
                f"{path} is a device or a pipe, where a file is expected; put the file there"
            )
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, NOT_THERE):
            why = said_of_link(path)
            if not why:
                raise
        raise UnreadableError(
            f"{path} cannot be read: {why}. This is no sign of damage, and nothing was renamed or removed; see to its "
            "permissions, disk or mount, then give the same command again"
        ) from error


def sync_file(path: Path) -> None:
    """Flushes a file to the disk that another library wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: a rename is on the disk only after its directory is."""
    sync_file(path)  # POSIX flushes both by the same call


class SyncedWriter:
    """A new file that is hashed while it is written, and flushed to the disk when the block ends.

    Everything goes through `os.open`, `os.write`, `os.fsync` and `os.close`, so that a test can end the process at
    each of them.
    """

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes, all of them: the system may take them in parts."""
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest[:WRITE_BYTES])
            self._digest.update(rest[:written])
            rest = rest[written:]

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)


def write_synced(path: Path, data: bytes) -> str:
    """Writes a file, flushes it to the disk, returns its SHA-256. Not atomic by itself: see `atomic_directory`."""
    with SyncedWriter(path) as file:
        file.write(data)
    return file.sha256


def write_atomic(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, whole or not at all.

    Raises:
        OutputError: the place can't be written.
    """
    above = next((folder for folder in path.parents if folder.exists()), path.parent)
    if not above.is_dir():
        raise OutputError(f"cannot write {path}: {above} is not a folder; choose another place")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(temporary, data)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException as error:  # a signal, too, must leave nothing
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose another place or free it"
        ) from error


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling to fill; renames it to `path` when the block ends well, removes it when not.

    The files inside must be written with `write_synced` (or synced by whoever writes them). `path` must not exist.

    Raises:
        OutputError: `path` exists, or the place can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists():
            raise OutputError(f"{path} already exists; remove it or choose another place")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        sync_directory(temporary)
        os.rename(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another place or free it"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Removes a directory so that nobody meets half of it: it is first renamed to a hidden name.

    Where it is not there, what is left of a removal that was cut off is removed.

    Raises:
        OutputError: it can't be removed.
    """
    hidden = path.with_name(f".{path.name}.removed")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        if is_named(path):
            os.rename(path, hidden)
            shutil.rmtree(hidden)
    except OSError as error:
        raise OutputError(
            f"cannot remove {path}: {error.strerror}; see who may write to {path.parent}"
        ) from error


def remove_empty(folders: Sequence[Path]) -> None:
    """Removes those of some folders that are there and empty, in that order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def sweep(directory: Path) -> None:
    """Removes what writes and removals that were cut off left in a directory. Only for its one writer.

    Raises:
        OutputError: something can't be removed.
    """
    for left in directory.glob(".*"):
        if left.suffix in (".tmp", ".removed"):
            try:
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot remove {left}, which a run that was cut off left: {error.strerror}; see who may write "
                    f"to {directory}"
                ) from error


def ensure_writable_directory(path: Path) -> None:
    """Makes a directory and proves that it takes a file of `PROBE_BYTES`, flushed, before long work begins.

    Raises:
        OutputError: it can't be made, or not written to; nothing is left of what was made.
    """
    if why := said_of_link(path):
        raise OutputError(
            f"cannot write to the folder {path}: {why}; mount or make that folder, or choose another place"
        )
    probe = path / f".write-probe.{os.getpid()}.tmp"
    new = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            write_synced(probe, bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        remove_empty(new)
        raise OutputError(
            f"cannot write to the folder {path}: {error.strerror}; choose another place"
        ) from error
    except KeyboardInterrupt:
        probe.unlink(missing_ok=True)
        raise


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    timeout_s: float = 60.0,
    on_bytes: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetches `url` to `path`, verified, or leaves nothing behind.

    Args:
        sha256: the published hash; without it only the announced length is checked.
        on_bytes: called with (bytes so far, total or None) after each piece.
    Raises:
        DownloadError: no connection, an HTTP error, a body cut short, or another file than the published one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        request = urllib.request.Request(url, headers={"User-Agent": "myna"})
        with urllib.request.urlopen(request, timeout=timeout_s) as response, open(temporary, "wb") as file:
            announced = response.headers.get("Content-Length")
            total = int(announced) if announced else None
            received = 0
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                if on_bytes:
                    on_bytes(received, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and received != total:
            raise DownloadError(f"{url}: {received} of {total} bytes came; try again")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise DownloadError(
                f"{url}: not the published file (SHA-256 {digest.hexdigest()}, expected {sha256}); "
                "a proxy or login page may have answered in its place"
            )
        os.replace(temporary, path)
        sync_directory(path.parent)
    except (urllib.error.URLError, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"cannot download {url}: {reason}; check the network, or give a local file"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> str:
    """Writes tensors in the safetensors format, in the order given, flushed to the disk; returns the SHA-256.

    Args:
        tensors: name -> array of one of `SAFETENSORS_DTYPES`; made contiguous one at a time, so the extra
            memory is at most one tensor.
    Source:
        https://huggingface.co/docs/safetensors: an 8-byte little-endian header length, a JSON header of dtype,
        shape and offsets (padded with spaces to 8 bytes), then the raw little-endian data.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    with SyncedWriter(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return file.sha256
