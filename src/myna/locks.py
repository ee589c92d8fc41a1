"""A lock on a file: one process works in a folder at a time, and others can see that it does."""

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from myna.errors import OutputError


@contextlib.contextmanager
def locked(path: Path, *, busy: str = "", waits: bool = False) -> Iterator[int]:
    """Holds an exclusive lock on a file within the block. The system releases it when the process ends, however.

    Args:
        path: the lock's file; made where it is missing, and never removed here.
        busy: the message where another process holds it; "{holder}" in it becomes that process.
        waits: wait for that process instead.
    Yields:
        the open descriptor.
    Raises:
        OutputError: another process holds it, it can't be written, or the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
                raise OutputError(busy.replace("{holder}", holder or "another process")) from error
            raise OutputError(
                f"{path} cannot be locked ({error.strerror}), and two processes in one folder would destroy each "
                "other's work; give a place on a file system with locks"
            ) from error
        with contextlib.suppress(
            OSError
        ):  # on a full disk the lock holds all the same, and the holder has no name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def lock_is_held(path: Path, table: Path = Path("/proc/locks")) -> bool | None:
    """Whether a process holds the lock of `locked`; None where nobody can tell.

    The lock itself is not touched: whoever tries it holds it for a moment, and a process that begins just then gives
    up. The system's table of locks tells, of processes on this machine.

    Args:
        table: the system's table.
    """
    try:
        holder = re.fullmatch(r"process (\d+) on (.+)\n", path.read_text("utf-8"))
        if holder is None or holder[2] != socket.gethostname():
            return None
        rows = [row.split() for row in table.read_text("ascii").splitlines()]
    except (OSError, ValueError):
        return None
    # By the process, not by the file: the table's device and number are not those of `stat` on every file system.
    return any(row[1:5:3] == ["FLOCK", holder[1]] for row in rows)
