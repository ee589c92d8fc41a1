"""Where a thing that a person named lies on this machine: a path is itself, a URL is fetched into the user's cache.

    CACHE/fetched/KEY/url.txt          the address, without secrets; KEY is a hash of the whole address
    CACHE/fetched/KEY/now/NAME         files that may change: a run, a model, files of any kind
    CACHE/fetched/KEY/VERSION/NAME     a dataset, which is another folder when dataset.json is another

What is needed of a URL, and how it is verified, its room knows: see `Fetch`.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from myna.errors import MynaError, OutputError, UsageError
from myna.files import cache_folder, json_bytes, sha256_bytes, write_atomic
from myna.locks import locked
from myna.parsing import parse_json
from myna.paths import cannot_use, given_path
from myna.store.address import is_url
from myna.store.remote import Entry, Remote, Wanted

# Fetches what is needed of a place into a folder of the cache, and says where it lies there.
Fetch = Callable[[Remote, Path], Path]

NOW = "now"
STAMPS = "stamps.json"
ADDRESS = "url.txt"


def here(given: str | os.PathLike[str], fetch: Fetch, error: type[MynaError] = UsageError) -> Path:
    """The path on this machine of what a person named.

    Args:
        fetch: what is needed of a URL.
        error: the kind of error for a path that can't be one, see `given_path`.
    Raises:
        MynaError: of that kind. UsageError: no such kind of URL. DownloadError: it can't be read, or is damaged.
        OutputError: the cache can't be written.
    """
    if not is_url(given):
        return given_path(given, error)
    url = os.fspath(given)
    remote, folder = Remote(url), _folder_of(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ADDRESS).exists():
            write_atomic(folder / ADDRESS, remote.url.encode())
    except OSError as problem:
        raise OutputError(f"{cannot_use(problem, folder)}; XDG_CACHE_HOME names another cache") from problem
    with locked(folder / ".lock", waits=True):
        return fetch(remote, folder)


def address_of(path: Path) -> str:
    """What a person would call a path: the URL that it was fetched from, else the path itself."""
    fetched = cache_folder() / "fetched"
    if not path.is_relative_to(fetched):
        return str(path)
    key, _, _, *rest = path.relative_to(fetched).parts
    return "/".join([(fetched / key / ADDRESS).read_text(), *rest])


def results_beside(given: str | os.PathLike[str], name: str) -> Path:
    """Where results about a folder go: into it; for a URL, here."""
    return Path(name) if is_url(given) else given_path(given) / name


def fetch_any(remote: Remote, folder: Path) -> Path:
    """All files of a place, or the one file; of what came before, only what has changed since.

    Raises:
        DownloadError: nothing is there, or it can't be read.
    """
    files = remote.all_files()
    into = folder / NOW if list(files) == [""] else folder / NOW / remote.name
    fetch_changed(remote, files, folder, into)
    return folder / NOW / remote.name


def fetch_changed(
    remote: Remote, files: dict[str, Entry], folder: Path, into: Path, gone: Collection[str] = ()
) -> None:
    """Fetches those of some files that are new or have changed since they were fetched.

    Args:
        folder: where it is kept what came: the stamp of each file.
        gone: the names of files that are no longer there, to be removed here too.
    Raises:
        DownloadError: a file can't be read.
    """
    stamps = _stamps(folder)
    for name in gone:
        (into / name).unlink(missing_ok=True)
    for name, entry in files.items():
        if stamps.get(name) == entry.stamp and (into / (name or remote.name)).is_file():
            continue
        remote.fetch([Wanted(name, entry.n_bytes)], into)
        stamps[name] = entry.stamp
        write_atomic(folder / STAMPS, json_bytes(stamps))


def _stamps(folder: Path) -> dict[str, str]:
    try:
        stamps = parse_json((folder / STAMPS).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _folder_of(url: str) -> Path:
    return cache_folder() / "fetched" / sha256_bytes(url.rstrip("/").encode())[:16]
