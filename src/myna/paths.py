"""The one door for what a person gives as a path, and the one line for a path that fails.

At the door ~ is expanded, and it is asked whether a file can have such a name and whether the system tells what lies
there. What should lie there, a run or a dataset, is known to who uses it. Addresses (s3://...) and names (gpt2,
hf:OWNER/NAME) lead to nothing on this machine, and pass.
"""

import errno
import os
import shlex
import stat
from pathlib import Path

from myna.errors import MynaError, UsageError

MOST_SHOWN = 200  # characters of a path in a message

WHAT_TO_DO = {
    errno.EACCES: "see who may read and write it, and who may enter the folders above it",
    errno.EPERM: "see who may read and write it",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def given_path(given: str | os.PathLike[str], error: type[MynaError] = UsageError) -> Path:
    """A path as a person gave it, ready to be used.

    Raises:
        MynaError: of the kind `error`: no file can have that name, ~ leads to no home, or the system doesn't tell
            what is there.
    """
    text = os.fspath(given)
    if "\0" in text:
        raise error(f"the path {shown(text)} holds a NUL, which no name can; give another")
    path = Path(text)
    try:
        if text.startswith("~") and not os.path.lexists(text):
            path = path.expanduser()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.stat(f"{path}/.")  # fails where the folder may not be entered
        elif not stat.S_ISREG(mode):
            raise error(f"{shown(path)} is a device or a pipe; give a file or a folder")
    except RuntimeError as problem:
        home = path.parts[0]
        raise error(
            f"{home} leads to no home folder; give the folder itself, or ./{home} for a name that begins with ~"
        ) from problem
    except (FileNotFoundError, NotADirectoryError) as problem:
        if why := said_of_link(path):
            raise error(f"{why}; mount or make that folder, or give another path") from problem
        # else a name, an address, or a place that is yet to be made
    except OSError as problem:
        raise error(cannot_use(problem, path)) from problem
    return path


def said_of_link(path: Path) -> str:
    """What to say of a path on whose way a link leads nowhere: to a disk that is not mounted, say; else nothing."""
    links = (p for p in (path, *path.parents) if os.path.islink(p) and not os.path.exists(p))
    return next((f"{link} is a link to {os.readlink(link)}, which is not there" for link in links), "")


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: what the system gave in other bytes can't.

    >>> is_unicode("naïve"), is_unicode("caf\\udce9")
    (True, False)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(path: str | os.PathLike[str]) -> str:
    """A path for a line of text: in quotes where it has what can't be printed, and cut where it is long.

    >>> shown("runs/a"), shown("a\\nb"), len(shown("x" * 5000))
    ('runs/a', "'a\\\\nb'", 203)
    """
    text = os.fspath(path)
    text = text if text.isprintable() else repr(text)
    half = MOST_SHOWN // 2
    return text if len(text) <= MOST_SHOWN else f"{text[:half]}...{text[-half:]}"


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as it must be typed in a shell, for a command that a message shows.

    >>> quoted("runs/a"), quoted("runs/r 1"), quoted("-x"), quoted("s3://bucket/a")
    ('runs/a', "'runs/r 1'", './-x', 's3://bucket/a')
    """
    text = os.fspath(path)
    if not text.isprintable():  # no shell is known to read it, and a message is one line
        return shown(text)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def cannot_use(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """An error of the system as one line: which file, why, and what to do.

    Args:
        path: what to name where the error names nothing.

    >>> cannot_use(PermissionError(errno.EACCES, "Permission denied", "runs/a"))
    'cannot use runs/a: Permission denied; see who may read and write it, and who may enter the folders above it'
    """
    named = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else path
    place = "a file or connection" if named is None else shown(os.fsdecode(named))
    what_to_do = WHAT_TO_DO.get(error.errno or 0, "give another, or try again")
    return f"cannot use {place}: {error.strerror or error}; {what_to_do}"
