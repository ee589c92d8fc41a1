"""Files, folders and globs on this machine: which files are taken as text, and which are left out.

A suffix of `source.KINDS` says what a file holds. A file of any other name is one document of text, unless its first
8 KiB (decompressed, for .gz and .zst) show that it isn't: a NUL byte, or bytes that are not UTF-8. In folders and globs
such files are left out and counted. So are empty files of other names, hidden files and folders (their name begins
with a dot), and folders that `myna prepare` made. Links to folders are left out and named: followed, they may lead in
a circle. Links to files are followed. What can't be read is never left out: it is an error.
"""

import codecs
import collections
import errno
import fnmatch
import os
import re
import stat
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from myna.data.sources.reading import open_bytes
from myna.data.sources.source import COMPRESSIONS, Source, kind_of
from myna.errors import DataError
from myna.paths import given_path, is_unicode

SAMPLE_BYTES = 8192
NAMES_SHOWN = 6
OURS = "made by myna prepare"
LINKED = "linked"
MARKS = (".lock", "dataset.json", "tokenizer.json")
MAGIC = re.compile(r"[*?[]")


class LeftOut(collections.Counter[tuple[str, str]]):
    """How many files were left out, by (why, suffix).

    The suffix is "" where it does not matter; a link to a folder has its path there.


    >>> str(LeftOut({("binary", ".png"): 12, ("empty", ""): 2000, ("binary", ".pyc"): 3}))
    '12 .png, 3 .pyc (binary); 2,000 empty'
    >>> str(LeftOut({("linked", "a/b"): 1, ("linked", "a/c"): 1}))
    '2 linked (a/b, a/c: name such a folder to have it read)'
    """

    def __str__(self) -> str:
        by_suffix: dict[str, list[str]] = {}
        others = []
        for (why, suffix), count in self.most_common():
            if why == LINKED:
                continue
            if suffix:
                by_suffix.setdefault(why, []).append(f"{count:,} {suffix}")
            else:
                others.append(f"{count:,} {why}")
        groups = []
        for why, counts in by_suffix.items():
            rest = len(counts) - NAMES_SHOWN
            shown = ", ".join(counts[:NAMES_SHOWN]) + f" and {rest} other suffixes" * (rest > 0)
            groups.append(f"{shown} ({why})")
        return "; ".join(groups + others + self._links())

    def _links(self) -> list[str]:
        links = sorted(path for why, path in self if why == LINKED)
        rest = len(links) - NAMES_SHOWN
        shown = ", ".join(links[:NAMES_SHOWN]) + f" and {rest} others" * (rest > 0)
        return [f"{len(links):,} linked ({shown}: name such a folder to have it read)"] if links else []


def local_files(spec: str, left_out: LeftOut) -> list[Source] | None:
    """The files that a path or a glob names, by name; None where there is nothing of that name.

    Args:
        left_out: counts what was left out.
    Raises:
        DataError: a file that was named is no text, a folder or glob holds none, or something in it can't be read.
    """
    path = given_path(spec, DataError)
    status = _status(path)
    if status is not None and stat.S_ISREG(status.st_mode):
        source, problem = _look_at(path, status)
        if problem not in (None, "empty"):
            raise DataError(
                f"{spec} is no text ({problem}); name text, .jsonl or .parquet files, or convert it to UTF-8 text"
            )
        return [source]
    before = left_out.total()
    if status is None:
        found = dict(_regular(_expand(Path(path.anchor), path.relative_to(path.anchor).parts, left_out)))
        if not found:
            return None
        above = {folder for file in found for folder in file.parents}
        ours = {folder for folder in above if _is_ours(folder, [n for n in MARKS if _status(folder / n)])}
        found = {file: status for file, status in found.items() if ours.isdisjoint(file.parents)}
        if ours:
            left_out[OURS, ""] += len(ours)
    elif stat.S_ISDIR(status.st_mode):
        found = dict(_walk(path, left_out))
    else:
        raise DataError(f"{spec} is no regular file (a device or a pipe?); copy its text into a file")
    files = []
    for file in sorted(found, key=Path.as_posix):
        source, problem = _look_at(file, found[file])
        if problem is None:
            files.append(source)
        else:
            left_out[problem, "" if problem == "empty" else file.suffix.lower() or "without a suffix"] += 1
    if not files:
        why = f"left out: {left_out}" if left_out.total() > before else "it is empty"
        raise DataError(f"{spec} holds no text ({why}); name text, .jsonl or .parquet files")
    return files


def _status(path: Path) -> os.stat_result | None:
    """What is at a path; None where nothing is: no such name, a link that leads nowhere or in a circle.

    Raises:
        DataError: it can't be asked.
    """
    try:
        return path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise DataError(f"cannot read {path}: {error.strerror}; name what can be read") from error


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder. Raises DataError if it can't be read."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise DataError(
            f"cannot read the folder {folder}: {error.strerror}; name what can be read"
        ) from error


def _is_folder(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _regular(paths: Iterator[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Those of the paths that are regular files."""
    for path in paths:
        status = _status(path)
        if status is not None and stat.S_ISREG(status.st_mode):
            yield path, status


def _expand(place: Path, parts: Sequence[str], left_out: LeftOut) -> Iterator[Path]:
    """What a glob's parts name below a place; `**` is any number of folders. Hidden names must be named.

    The standard library's leaves out in silence what it can't read, and follows links in circles.
    """
    waiting = [(place, tuple(parts))]
    while waiting:
        place, parts = waiting.pop()
        if not parts:
            yield place
            continue
        head, rest = parts[0], parts[1:]
        if not MAGIC.search(head):
            waiting.append((place / head, rest))
            continue
        if head == "**":
            waiting.append((place, rest or ("*",)))
        for entry in _entries(place) if _is_folder(place) else []:
            path = place / entry.name
            if entry.name.startswith(".") and not head.startswith("."):
                continue
            if head != "**":
                if fnmatch.fnmatchcase(entry.name, head):
                    waiting.append((path, rest))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((path, parts))
            elif entry.is_symlink() and _is_folder(path):
                left_out[LINKED, path.as_posix()] = 1


def _walk(folder: Path, left_out: LeftOut) -> Iterator[tuple[Path, os.stat_result]]:
    """The regular files in a folder and the folders in it."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        entries = _entries(place)
        if _is_ours(place, [entry.name for entry in entries]):
            left_out[OURS, ""] += 1
            continue
        for entry in entries:
            path = place / entry.name
            if entry.name.startswith("."):
                left_out["hidden", ""] += 1
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif (status := _status(path)) is not None and stat.S_ISREG(status.st_mode):
                yield path, status
            elif status is not None and stat.S_ISDIR(status.st_mode):
                left_out[LINKED, path.as_posix()] = 1
            else:
                left_out["no regular file", ""] += 1


def _is_ours(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder is a dataset, or an unfinished one, by the names in it: its JSON files are no text."""
    needed = {".lock"} if folder.suffix == ".partial" else {"dataset.json", "tokenizer.json"}
    return needed <= set(names)


def _look_at(path: Path, status: os.stat_result) -> tuple[Source, str | None]:
    """A file as a source, and why it is no text; None where it is, or where its name says what it holds."""
    name = path.as_posix()
    if not is_unicode(name):
        raise DataError(
            f"the name of the file {name!r} is not UTF-8, and dataset.json records it; rename the file"
        )
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise DataError(f"cannot read {name}: {os.strerror(errno.EACCES)}; name what can be read")
    known = kind_of(path.name)
    kind, compression = known or ("text", COMPRESSIONS.get(path.suffix.lower(), ""))
    source = Source(
        name, str(path), kind, compression, n_bytes=status.st_size, modified_ns=status.st_mtime_ns
    )
    if known is not None:
        return source, None
    return source, "empty" if not status.st_size else _problem(source)


def _problem(source: Source) -> str | None:
    """Why a file is no text, by its first bytes; None if they are text."""
    try:
        with open_bytes(source) as file:
            sample = file.read(SAMPLE_BYTES)
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"cannot read {source.name}: {error.strerror}") from error
        return "damaged"
    except (EOFError, zlib.error):
        return "damaged"
    if b"\0" in sample:
        return "binary"
    return None if _is_utf8(sample, cut=len(sample) == SAMPLE_BYTES) else "not UTF-8"


def _is_utf8(data: bytes, cut: bool = False) -> bool:
    """Whether bytes are UTF-8. `cut`: they may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError:
        return False
    return True
