"""Datasets on another store: dataset.json is read anew each time, and the files that it states are fetched once.

Each dataset.json has a folder of its own in the cache: where the remote one changes, a run that reads the old shards
goes on with them.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from myna.data.split import SPLITS
from myna.data.verify import Hashed, fingerprint, hash_files, remember
from myna.errors import DataError
from myna.files import sha256_bytes, write_atomic
from myna.parsing import field, parse_json
from myna.store.here import fetch_any
from myna.store.remote import DamagedError, Remote, Wanted

DATASET = "dataset.json"


def fetch_validation(remote: Remote, folder: Path) -> Path:
    """`fetch_data` of the validation split alone."""
    return fetch_data(remote, folder, ("val",))


def fetch_data(remote: Remote, folder: Path, splits: Collection[str] = SPLITS) -> Path:
    """A prepared dataset, each file as dataset.json states it; or what else lies there, whose sizes alone are checked.

    Args:
        splits: those that will be read.
    Raises:
        DataError: dataset.json is damaged, or a file is not the one it states.
        DownloadError: nothing is there, or it can't be read.
    """
    raw = remote.read(DATASET)
    if raw is None:
        return fetch_any(remote, folder)
    into = folder / sha256_bytes(raw)[:12] / remote.name
    try:
        wanted = list(_stated(parse_json(raw), splits))
    except ValueError as error:
        raise DataError(
            f"{remote.url}/{DATASET} is damaged ({error}); copy the dataset there again"
        ) from error
    here = [one for one in wanted if (into / one.name).is_file()]
    found = hash_files([into / one.name for one in here])
    sound = {one.name for one in here if found[into / one.name] == one.sha256}
    missing = [one for one in wanted if one.name not in sound]
    sizes = {name: entry.n_bytes for name, entry in remote.list().items()} if missing else {}
    try:
        remote.fetch([Wanted(one.name, sizes.get(one.name), one.sha256) for one in missing], into)
    except DamagedError as error:
        raise DataError(str(error)) from error
    remember({into / one.name: Hashed(fingerprint(into / one.name), str(one.sha256)) for one in missing})
    write_atomic(into / DATASET, raw)
    return into


def _stated(info: Any, splits: Collection[str]) -> Iterator[Wanted]:
    """The files that a dataset.json states, of some splits."""
    yield Wanted("tokenizer.json", sha256=field(info, "tokenizer", str))
    for split in splits:
        of = f"{split}.shards"
        for shard in field(field(info, split, dict), "shards", list, split):
            yield Wanted(Path(field(shard, "file", str, of)).name, sha256=field(shard, "sha256", str, of))
            if "scored" in shard:
                scored, of_scored = field(shard, "scored", dict, of), f"{of}.scored"
                name = Path(field(scored, "file", str, of_scored)).name
                yield Wanted(name, sha256=field(scored, "sha256", str, of_scored))
