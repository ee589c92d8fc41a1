"""Checkpoints: directories, written atomically and verified when read. Transformers loads them, if it has the network.

Transformers reads `config.json`, `model.safetensors`, the tokenizer's files and `generation_config.json`. The other
files are the training state and `manifest.json`. The manifest lists the size and SHA-256 of every other file. Its last
entry, `sha256`, is the SHA-256 of the same JSON without that entry. A checkpoint is sound when all of it agrees.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from myna.errors import CheckpointError, OutputError
from myna.files import (
    NOT_THERE,
    atomic_directory,
    json_bytes,
    reading,
    sha256_bytes,
    sha256_file,
    write_safetensors,
    write_synced,
)
from myna.model.layout import as_float32
from myna.model.network import Network
from myna.model.weights import WEIGHTS, read_safetensors
from myna.parsing import field, parse_json, read_object
from myna.text.tokenizer import Tokenizer

MANIFEST = "manifest.json"
TRAIN_TENSORS = "train_state.safetensors"
TRAIN_STATE = "train_state.json"
_STEP = re.compile(r"step_(\d{8,})")


def checkpoint_name(step: int) -> str:
    """The directory of a step.

    >>> checkpoint_name(500)
    'step_00000500'
    """
    return f"step_{step:08d}"


def checkpoint_step(path: Path) -> int:
    """The step in the name of a checkpoint's directory."""
    match = _STEP.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not named like a checkpoint (step_00000500)")
    return int(match[1])


def save_checkpoint(
    path: Path,
    network: Network,
    *,
    files: Mapping[str, bytes],
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """Writes a checkpoint, whole or not at all.

    A sound one at `path` stays as it is. A damaged one is renamed first (`set_aside`).

    Args:
        network: defines the layout of the weights' file. Its own weights are not used.
        files: small files by name, see `config_files`.
        weights: parameter name -> tensor, as the network's `state_dict` has them.
        tensors: the other tensors that a resume needs, by names that the caller chooses. They are written in fp32.
        state: the rest of what a resume needs, as JSON.
    Raises:
        OutputError: it can't be written; the directory is then absent.
        UnreadableError: the checkpoint at `path` can't be read; it stays.
    """
    if os.path.lexists(path):
        if is_sound(path):
            return
        set_aside(path)
    with atomic_directory(path) as directory:
        for name, content in files.items():
            write_synced(directory / name, content)
        tokenizer.save(directory)
        arrays = network.layout.to_file(network, weights)
        kept = {name: as_float32(tensor) for name, tensor in tensors.items()}
        hashes = {
            WEIGHTS: write_safetensors(directory / WEIGHTS, arrays),
            TRAIN_TENSORS: write_safetensors(directory / TRAIN_TENSORS, kept),
        }
        write_synced(directory / TRAIN_STATE, json_bytes(dict(state)))
        write_synced(directory / MANIFEST, _manifest(directory, hashes))


def load_train_files(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The `tensors` and the `state` that `save_checkpoint` got. An older version may have written them in its own form.

    Raises:
        CheckpointError: it holds no training state. UnreadableError: it can't be read.
    """
    tensors = read_safetensors(path / TRAIN_TENSORS)
    return tensors, read_object(path / TRAIN_STATE, CheckpointError, "use another checkpoint")


def _manifest(directory: Path, hashes: Mapping[str, str]) -> bytes:
    """A directory's manifest. `hashes`: of the large files, computed while they were written; other files are read."""
    files = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return manifest_of(
        ManifestEntry(path.name, path.stat().st_size, hashes.get(path.name) or sha256_file(path))
        for path in files
    )


@dataclass(frozen=True)
class ManifestEntry:
    """What a manifest says of one file in its directory."""

    file: str
    n_bytes: int
    sha256: str


def manifest_of(files: Iterable[ManifestEntry]) -> bytes:
    """The manifest that lists these files."""
    entries = [{"file": one.file, "bytes": one.n_bytes, "sha256": one.sha256} for one in files]
    body: dict[str, Any] = {"format": "myna checkpoint 1", "files": entries}
    return json_bytes(body | {"sha256": sha256_bytes(json_bytes(body))})


def read_manifest(raw: bytes, manifest: str | Path) -> list[ManifestEntry]:
    """The files that a manifest lists.

    Args:
        manifest: where it lies, for messages.
    Raises:
        CheckpointError: it is no manifest, or was changed after it was written.
    """
    try:
        stated = parse_json(raw)
        if not isinstance(stated, dict):
            raise ValueError("it holds no JSON object")
        body = {key: value for key, value in stated.items() if key != "sha256"}
        # Compare the bytes, not the parsed JSON. So every edit is found, even one that only changes spaces.
        if json_bytes(body | {"sha256": sha256_bytes(json_bytes(body))}) != raw:
            raise CheckpointError(f"{manifest} was changed after it was written; use another checkpoint")
        return [
            ManifestEntry(
                field(entry, "file", str, "files"),
                field(entry, "bytes", int, "files"),
                field(entry, "sha256", str, "files"),
            )
            for entry in field(body, "files", list)
        ]
    except ValueError as error:
        raise CheckpointError(f"{manifest} is not a manifest ({error}); use another checkpoint") from error


def verify(path: Path) -> None:
    """Reads every byte of a checkpoint and compares it with the manifest.

    Raises:
        CheckpointError: the first file that is missing or not what was written.
        UnreadableError: a file is there but can't be read, so it is unknown whether the checkpoint is sound.
    """
    manifest = path / MANIFEST
    try:
        with reading(manifest):
            raw = manifest.read_bytes()
    except NOT_THERE as error:
        raise CheckpointError(
            f"{manifest} is missing, so the checkpoint can't be checked; use another checkpoint"
        ) from error
    for listed in read_manifest(raw, manifest):
        verify_file(path, listed)


def verify_file(path: Path, listed: ManifestEntry) -> None:
    """Reads a file of a checkpoint and compares it with what the manifest lists.

    Raises:
        CheckpointError: it is missing or not what was written. UnreadableError: it can't be read.
    """
    file = path / listed.file
    try:
        with reading(file):
            found = os.stat(file)
            same = (
                found.st_size == listed.n_bytes
                and stat.S_ISREG(found.st_mode)
                and sha256_file(file) == listed.sha256
            )
    except NOT_THERE as error:
        raise CheckpointError(f"{file} is missing; use another checkpoint") from error
    if not same:
        raise CheckpointError(
            f"{file} is damaged (size or SHA-256 differ from the manifest); use another checkpoint"
        )


def is_sound(path: Path) -> bool:
    """Whether `verify` finds no damage.

    Raises:
        UnreadableError: it can't be read.
    """
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint to `*.damaged`, so that nothing takes it for a sound one.

    Raises:
        OutputError: it can't be renamed.
    """
    target = path.with_name(path.name + ".damaged")
    number = 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{path.name}.damaged{number}")
    try:
        os.rename(path, target)
    except OSError as error:
        raise OutputError(
            f"{path} is damaged and cannot be renamed: {error.strerror}; see who may write to {path.parent}"
        ) from error
    return target


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a run's `checkpoints/`, newest first, sound or not.

    Raises:
        UnreadableError: the folder can't be listed, or its path is a link that leads nowhere. (A folder that doesn't
            exist gives an empty list.)
    """
    try:
        with reading(directory):
            names = os.listdir(directory)
    except NOT_THERE:
        return []
    return [directory / name for name in newest_first(names)]


def newest_first(names: Iterable[str]) -> list[str]:
    """The names among `names` that are names of checkpoints, newest first.

    >>> newest_first(["step_00000500", "step_00001000", "step_00000500.damaged"])
    ['step_00001000', 'step_00000500']
    """
    steps = filter(_STEP.fullmatch, names)
    return sorted(steps, key=lambda name: checkpoint_step(Path(name)), reverse=True)


def newest_sound(directory: Path, on_damaged: Callable[[Path, CheckpointError], None]) -> Path | None:
    """The newest checkpoint that verifies, or None where there is none.

    Args:
        on_damaged: called for each newer one that doesn't verify, with what is wrong.
    Raises:
        UnreadableError: one can't be read, so it is unknown whether it is sound.
    """
    for path in list_checkpoints(directory):
        try:
            verify(path)
        except CheckpointError as error:
            on_damaged(path, error)
        else:
            return path
    return None
