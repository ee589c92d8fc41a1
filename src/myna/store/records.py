"""A run's small files on another store: what `myna report` reads, and what goes with the checkpoints."""

from pathlib import Path

from myna.errors import DataError, DownloadError
from myna.run import Run
from myna.store.here import NOW, fetch_changed
from myna.store.remote import Remote


def fetch_records(remote: Remote, folder: Path) -> Path:
    """A run's records, without its checkpoints.

    Raises:
        DataError: it is no run. DownloadError: nothing is there, or it can't be read.
    """
    path = fetch_records_if_any(remote, folder)
    if not Run(path).exists():
        raise DataError(
            f"{remote.url} is not a run: it has no recipe.json; give the URL that `myna train --copy-to` had"
        )
    return path


def fetch_records_if_any(remote: Remote, folder: Path) -> Path:
    """The records of a run, or of a model that has none.

    Raises:
        DownloadError: nothing is there, or it can't be read.
    """
    found = remote.list()
    if not found:
        raise DownloadError(f"there is nothing at {remote.url}; check the address")
    into = folder / NOW / remote.name
    into.mkdir(parents=True, exist_ok=True)
    names = [path.name for path in Run(into).records]
    there = {name: found[name] for name in names if name in found}
    fetch_changed(remote, there, folder, into, gone=set(names) - set(there))
    return into
