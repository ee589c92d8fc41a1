"""Files, folders and globs on this machine: which files are taken as text, and which are left out.

A suffix of `source.KINDS` says what a file holds. A file of any other name is one document of text, unless its first
8 KiB (decompressed, for .gz and .zst) show that it isn't: a NUL byte, or bytes that are not UTF-8. In folders and globs
such files are left out and counted. So are empty files of other names, hidden files and folders (their name begins
with a dot), links to folders, and folders that `myna prepare` made.
"""

import codecs
import collections
import glob
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from myna.data.sources.formats import open_bytes
from myna.data.sources.source import COMPRESSIONS, Source, kind_of
from myna.errors import DataError
from myna.paths import given_path, is_unicode

SAMPLE_BYTES = 8192
SUFFIXES_SHOWN = 6
OURS = "made by myna prepare"


class LeftOut(collections.Counter[tuple[str, str]]):
    """How many files were left out, by (why, suffix); the suffix is "" where it does not matter.

    >>> str(LeftOut({("binary", ".png"): 12, ("empty", ""): 2000, ("binary", ".pyc"): 3}))
    '12 .png, 3 .pyc (binary); 2,000 empty'
    """

    def __str__(self) -> str:
        by_suffix: dict[str, list[str]] = {}
        others = []
        for (why, suffix), count in self.most_common():
            if suffix:
                by_suffix.setdefault(why, []).append(f"{count:,} {suffix}")
            else:
                others.append(f"{count:,} {why}")
        groups = []
        for why, counts in by_suffix.items():
            rest = len(counts) - SUFFIXES_SHOWN
            shown = ", ".join(counts[:SUFFIXES_SHOWN]) + f" and {rest} other suffixes" * (rest > 0)
            groups.append(f"{shown} ({why})")
        return "; ".join(groups + others)


def local_files(spec: str, left_out: LeftOut) -> list[Source] | None:
    """The files that a path or a glob names, by name; None where there is nothing of that name.

    Args:
        left_out: counts what was left out.
    Raises:
        DataError: a file that was named is no text, or a folder or glob holds none.
    """
    path = given_path(spec, DataError)
    if path.is_file():
        source, problem = _look_at(path)
        if problem not in (None, "empty"):
            raise DataError(
                f"{spec} is no text ({problem}); name text, .jsonl or .parquet files, or convert it to UTF-8 text"
            )
        return [source]
    before = left_out.total()
    if path.is_dir():
        paths = list(_walk(path, left_out))
    elif path.exists():
        raise DataError(f"{spec} is no regular file (a device or a pipe?); copy its text into a file")
    else:
        matches = [match for match in map(Path, glob.glob(str(path), recursive=True)) if match.is_file()]
        if not matches:
            return None
        ours = {
            folder for folder in {above for match in matches for above in match.parents} if _is_ours(folder)
        }
        paths = [match for match in matches if ours.isdisjoint(match.parents)]
        if ours:
            left_out[OURS, ""] += len(ours)
    files = []
    for file in sorted(paths, key=Path.as_posix):
        source, problem = _look_at(file)
        if problem is None:
            files.append(source)
        else:
            left_out[problem, "" if problem == "empty" else file.suffix.lower() or "without a suffix"] += 1
    if not files:
        found = f"left out: {left_out}" if left_out.total() > before else "it is empty"
        raise DataError(f"{spec} holds no text ({found}); name text, .jsonl or .parquet files")
    return files


def _walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """The regular files in a folder and the folders in it."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}; name what can be read")

    for place, folders, files in os.walk(folder, onerror=refuse):
        if _is_ours(Path(place)):
            left_out[OURS, ""] += 1
            folders.clear()
            continue
        for name in folders:
            if name.startswith("."):
                left_out["hidden", ""] += 1
            elif Path(place, name).is_symlink():  # os.walk does not follow it
                left_out["linked", ""] += 1
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                left_out["hidden", ""] += 1
            elif (path := Path(place, name)).is_file():
                yield path
            else:
                left_out["no regular file", ""] += 1


def _is_ours(folder: Path) -> bool:
    """Whether a folder is a dataset, or an unfinished one: their JSON files are no text of the corpus."""
    if folder.suffix == ".partial":
        return (folder / ".lock").exists()
    return (folder / "dataset.json").is_file() and (folder / "tokenizer.json").is_file()


def _look_at(path: Path) -> tuple[Source, str | None]:
    """A file as a source, and why it is no text; None where it is, or where its name says what it holds."""
    name, n_bytes = path.as_posix(), path.stat().st_size
    if not is_unicode(name):
        raise DataError(
            f"the name of the file {name!r} is not UTF-8, and dataset.json records it; rename the file"
        )
    known = kind_of(path.name)
    if known is not None:
        return Source(name, str(path), *known, n_bytes=n_bytes), None
    source = Source(name, str(path), "text", COMPRESSIONS.get(path.suffix.lower(), ""), n_bytes=n_bytes)
    return source, "empty" if n_bytes == 0 else _problem(source)


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
