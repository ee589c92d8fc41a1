"""What `--out` names: a folder or a file that is made whole, in a place that was free."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from myna.errors import OutputError
from myna.files import atomic_directory, ensure_writable_directory, remove_empty, sync_directory, sync_file


def check_free(out: Path, what: str = "a new or an empty folder") -> None:
    """
    Args:
        what: may be given instead, for the message.
    Raises:
        OutputError: there is something in that place.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise OutputError(f"--out {out} holds something else; give {what}")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """`atomic_directory`, which takes an empty folder for a new one, and leaves no folder above it if it fails."""
    above = _missing(out.parents)
    if out.is_dir():
        with contextlib.suppress(OSError):  # `atomic_directory` says what is in the way
            out.rmdir()
    try:
        with atomic_directory(out) as folder:
            yield folder
    except BaseException:
        remove_empty(above)
        raise


@contextlib.contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """A path for the block to write a file to; what it wrote is flushed and put at `out`, whole or not at all.

    Raises:
        OutputError: the place can't be written.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    above = _missing(out.parents)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync_file(temporary)
        os.replace(temporary, out)
        sync_directory(out.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        remove_empty(above)
        if not isinstance(error, OSError):
            raise
        raise OutputError(f"cannot write {out}: {error.strerror}; choose another place or free it") from error


@contextlib.contextmanager
def folder_of_results(path: Path, files: Sequence[str]) -> Iterator[None]:
    """Makes the folder before the block, which takes long; where the block fails, what it made goes again.

    Raises:
        OutputError: it can't be made, or not written to.
    """
    new = _missing((path, *path.parents))
    ensure_writable_directory(path)
    for name in files:
        if (path / name).is_dir():
            raise OutputError(f"{path / name} is a folder, where a file is to be written; give another --out")
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()
        raise


def _missing(folders: Iterable[Path]) -> list[Path]:
    return [folder for folder in folders if not os.path.lexists(folder)]
