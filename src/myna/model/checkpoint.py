"""Checkpoints: a directory that transformers loads directly, written atomically and verified when read.

`config.json`, `model.safetensors`, the tokenizer's files and `generation_config.json` are what transformers reads.
Beside them lie the training state and `manifest.json`: the size and SHA-256 of every file, and last the SHA-256 of
the manifest's own text before that line. A checkpoint is sound when all of it agrees.
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
from myna.parsing import parse_json, read_object
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
    """The number in such a name."""
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
    """Writes a checkpoint, whole or not at all. One that is there and sound is left as it is.

    Args:
        network: whose layout the weights get; its own weights are not looked at.
        files: small files by name, see `config_files`.
        weights: parameter name -> tensor, as the network's `state_dict` has them.
        tensors: what else a resume needs, by names of the caller's, fp32.
        state: the rest of it, as JSON.
    Raises:
        OutputError: it can't be written; the directory is then absent.
        UnreadableError: one is there that can't be read; it is left as it is.
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
    """What `save_checkpoint` was given as `tensors` and `state`, or an older Myna's.

    Raises:
        CheckpointError: it holds no training state. UnreadableError: it can't be read.
    """
    tensors = read_safetensors(path / TRAIN_TENSORS)
    return tensors, read_object(path / TRAIN_STATE, CheckpointError, "use another checkpoint")


def _manifest(directory: Path, hashes: Mapping[str, str]) -> bytes:
    """Args: hashes: of the large files, taken while they were written; the others are read."""
    files = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return manifest_of(
        Stated(path.name, path.stat().st_size, hashes.get(path.name) or sha256_file(path)) for path in files
    )


@dataclass(frozen=True)
class Stated:
    """What a manifest states of a file beside it."""

    file: str
    n_bytes: int
    sha256: str


def manifest_of(files: Iterable[Stated]) -> bytes:
    """The manifest that states these files."""
    entries = [{"file": one.file, "bytes": one.n_bytes, "sha256": one.sha256} for one in files]
    body: dict[str, Any] = {"format": "myna checkpoint 1", "files": entries}
    return json_bytes(body | {"sha256": sha256_bytes(json_bytes(body))})


def read_manifest(raw: bytes, manifest: str | Path) -> list[Stated]:
    """The files that a manifest states.

    Args:
        manifest: where it lies, for messages.
    Raises:
        CheckpointError: it is no manifest, or was changed after it was written.
    """
    try:
        stated = parse_json(raw)
        body = {key: value for key, value in stated.items() if key != "sha256"}
        # The bytes themselves are compared, so that no edit is equal "as JSON".
        if json_bytes(body | {"sha256": sha256_bytes(json_bytes(body))}) != raw:
            raise CheckpointError(f"{manifest} was changed after it was written; use another checkpoint")
        return [
            Stated(str(entry["file"]), int(entry["bytes"]), str(entry["sha256"])) for entry in body["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{manifest} is not a manifest: {error!r}; use another checkpoint") from error


def verify(path: Path) -> None:
    """Reads every byte of a checkpoint and compares it with the manifest.

    Raises:
        CheckpointError: the first file that is missing or not what was written.
        UnreadableError: a file that is there can't be read, so that nobody knows.
    """
    manifest = path / MANIFEST
    try:
        with reading(manifest):
            raw = manifest.read_bytes()
    except NOT_THERE as error:
        raise CheckpointError(f"{manifest} is missing; the checkpoint was never whole") from error
    for stated in read_manifest(raw, manifest):
        verify_file(path, stated)


def verify_file(path: Path, stated: Stated) -> None:
    """Reads a file of a checkpoint and compares it with what the manifest states.

    Raises:
        CheckpointError: it is missing or not what was written. UnreadableError: it can't be read.
    """
    file = path / stated.file
    try:
        with reading(file):
            found = os.stat(file)
            same = (
                found.st_size == stated.n_bytes
                and stat.S_ISREG(found.st_mode)
                and sha256_file(file) == stated.sha256
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
        UnreadableError: the folder is there, or behind a link that leads nowhere, and can't be listed.
    """
    try:
        with reading(directory):
            names = os.listdir(directory)
    except NOT_THERE:
        return []
    return [directory / name for name in newest_first(names)]


def newest_first(names: Iterable[str]) -> list[str]:
    """Those of some names that are of checkpoints, newest first.

    >>> newest_first(["step_00000500", "step_00001000", "step_00000500.damaged"])
    ['step_00001000', 'step_00000500']
    """
    steps = filter(_STEP.fullmatch, names)
    return sorted(steps, key=lambda name: checkpoint_step(Path(name)), reverse=True)


def newest_sound(directory: Path, on_damaged: Callable[[Path, CheckpointError], None]) -> Path | None:
    """The newest checkpoint that verifies, or None where there is none.

    Args:
        on_damaged: called for each newer one that doesn't, with what is wrong.
    Raises:
        UnreadableError: one can't be read, so that nobody knows whether it is the newest.
    """
    for path in list_checkpoints(directory):
        try:
            verify(path)
        except CheckpointError as error:
            on_damaged(path, error)
        else:
            return path
    return None
