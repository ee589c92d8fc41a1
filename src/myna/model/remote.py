"""Models on another store: what is fetched of a run, a checkpoint or a Hugging Face folder, and how it is verified.

A checkpoint is as the manifest says, file by file, or it is not used. Of a run that is the newest sound one; the
training state is fetched where training goes on, and for nothing else.
"""

import contextlib
import warnings
from collections.abc import Collection
from pathlib import Path

from myna.errors import CheckpointError, DownloadError, ModelError
from myna.files import write_atomic
from myna.model.checkpoint import (
    MANIFEST,
    TRAIN_TENSORS,
    manifest_of,
    newest_first,
    read_manifest,
    verify_file,
)
from myna.model.weights import CONFIG, MODEL_FILES
from myna.store.here import NOW, fetch_changed
from myna.store.remote import DamagedError, Remote, Wanted

CHECKPOINTS = "checkpoints"
# What only training reads: two thirds of a checkpoint.
NOT_OF_THE_MODEL = (TRAIN_TENSORS,)


def fetch_model(remote: Remote, folder: Path) -> Path:
    """The folder with the weights of a MODEL: of a run the newest sound checkpoint's.

    Raises:
        CheckpointError: a checkpoint is damaged, or none of a run's is sound. ModelError: it is no model.
        DownloadError: nothing is there, or it can't be read.
    """
    found, into = remote.list(), folder / NOW / remote.name
    if MANIFEST in found:
        return fetch_checkpoint(remote, into, NOT_OF_THE_MODEL)
    if CHECKPOINTS in found or "recipe.json" in found:
        return fetch_newest(remote, into / CHECKPOINTS, NOT_OF_THE_MODEL)
    if CONFIG in found:
        files = {name: entry for name, entry in found.items() if any(map(Path(name).match, MODEL_FILES))}
        fetch_changed(remote, files, folder, into, gone={path.name for path in _files(into)} - set(files))
        return into
    if not found:
        raise DownloadError(f"there is nothing at {remote.url}; check the address")
    raise ModelError(
        f"{remote.url} is no model; give the URL of a run, a checkpoint or a Hugging Face folder"
    )


def fetch_newest(remote: Remote, into: Path, but: Collection[str] = ()) -> Path:
    """The newest sound checkpoint of a run. Each newer one that is not is named in a warning.

    Raises:
        CheckpointError: none is sound. DownloadError: one can't be read, so that nobody knows.
    """
    steps = remote.below(CHECKPOINTS)
    for name in newest_first(steps.list()):
        try:
            return fetch_checkpoint(steps.below(name), into / name, but)
        except CheckpointError as error:
            warnings.warn(f"{error}; looking at the one before {name}", stacklevel=2)
    raise CheckpointError(f"the run {remote.url} has no sound checkpoint; give another")


def fetch_all(remote: Remote, folder: Path) -> Path:
    """A run's folder with the models of all its sound checkpoints; without them where it is no run.

    Raises:
        DownloadError: nothing is there, or one can't be read.
    """
    steps, into = remote.below(CHECKPOINTS), folder / NOW / remote.name
    for name in newest_first(steps.list()):
        try:
            fetch_checkpoint(steps.below(name), into / CHECKPOINTS / name, NOT_OF_THE_MODEL)
        except CheckpointError as error:
            warnings.warn(f"{error}; {name} is left out", stacklevel=2)
    return into


def fetch_checkpoint(remote: Remote, into: Path, but: Collection[str] = ()) -> Path:
    """A checkpoint's files, each as the manifest states it; those that are here already are not fetched.

    Args:
        but: the names of files that are not needed.
    Raises:
        CheckpointError: it was not copied to its end, or a file is missing or damaged.
        DownloadError: it can't be read.
    """
    raw = remote.read(MANIFEST)
    if raw is None:
        raise CheckpointError(f"{remote.url} has no {MANIFEST}: its copy is not finished")
    stated_files = read_manifest(raw, f"{remote.url}/{MANIFEST}")
    wanted = [stated for stated in stated_files if stated.file not in but]
    missing = []
    for stated in wanted:
        try:
            verify_file(into, stated)
        except CheckpointError:
            missing.append(Wanted(stated.file, stated.n_bytes, stated.sha256))
    try:
        remote.fetch(missing, into)
    except DamagedError as error:
        raise CheckpointError(str(error)) from error
    except DownloadError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CheckpointError(str(error)) from error
        raise
    # Of what is here: a checkpoint that lacks what was left out is sound.
    write_atomic(into / MANIFEST, raw if wanted == stated_files else manifest_of(wanted))
    return into


def _files(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [path for path in folder.iterdir() if path.is_file()]
    return []
