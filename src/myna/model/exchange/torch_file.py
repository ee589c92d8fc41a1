"""Files of `torch.save`, read as data: nothing in them is run.

A pickle may name any function and call it. Three things stand before that. First, all names in the pickle are listed
without running it: a name that weights are not made of is refused. Second, torch's weights-only unpickler reads the
file; it calls only functions of its own list. Third, an empty class takes the place of a config class of somebody's:
its module is not imported, and it has no method that could be called.

Source: torch/serialization.py (both of its formats: a zip archive since 1.6, and five pickles in a row before).
"""

import errno
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from myna.errors import CheckpointError, MynaError, first_line
from myna.files import reading
from myna.progress import Progress

ZIP = b"PK\x03\x04"
LEGACY_PICKLES = (
    5  # a number that marks the format, its version, the machine, the object, the keys of its tensors
)
CHUNK_BYTES = 16 << 20

# What tensors and their containers are pickled as: "module name", as a pickle spells it.
_PLAIN = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch (Size|device)|torch \w+Storage"
    r"|torch (float16|bfloat16|float32|float64|u?int\d+|bool)"
)
_CONFIG = re.compile(r"[\w.]+ \w*Config")


class Fields:
    """The fields of a config object, as its attributes. It has no methods, so that restoring it runs nothing."""


def read_torch_file(path: Path) -> Any:
    """What was given to `torch.save`: tensors on the CPU, containers, plain values, and `Fields` for config objects.

    Raises:
        CheckpointError: it is no such file, or damaged, or holds more than weights. UnreadableError: it can't be read.
    """
    try:
        with reading(path), open(path, "rb") as file:
            zipped = file.read(len(ZIP)) == ZIP
            file.seek(0)
            configs = _names_in_zip(file, path) if zipped else _names_in_pickles(file, path)
        # A class of its own for each: torch finds it by the name that the pickle gives.
        stand_ins: list[Any] = [(type("Fields", (Fields,), {}), name) for name in configs]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (MynaError, OSError):
        raise
    except Exception as error:  # a damaged pickle leads to errors of any kind
        raise CheckpointError(f"{path} cannot be read as a file of torch.save: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """The cause alone: torch puts advice around it, which would have the file run."""
    cause = str(error).split("WeightsUnpickler error: ")[-1]
    return first_line(ValueError(cause)) if cause.strip() else type(error).__name__


def _names_in_zip(file: IO[bytes], path: Path) -> set[str]:
    """Checks the names in an archive and the checksums of all it holds; gives the names of config classes."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            pickles = [member for member in members if member.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise CheckpointError(
                    f"{path} is a zip archive, but not one of torch.save; give a checkpoint"
                )
            with archive.open(pickles[0]) as pickled:
                configs = _checked_names(pickled, path)
            _check_sums(archive, path)
            return configs
    except (zipfile.BadZipFile, OSError) as error:
        if (
            isinstance(error, OSError) and error.errno != errno.EINVAL
        ):  # a damaged length leads before the beginning
            raise
        raise CheckpointError(
            f"{path} is cut off or damaged ({first_line(error)}); copy it again, or give an earlier checkpoint"
        ) from error


def _check_sums(archive: zipfile.ZipFile, path: Path) -> None:
    """Reads all members: the library compares each with its CRC-32, which torch.load does not.

    Raises:
        BadZipFile: one differs.
    """
    total = sum(member.file_size for member in archive.infolist())
    with Progress(f"checking {path.name}", total, counted=False) as progress:
        for member in archive.infolist():
            with archive.open(member) as content:
                while piece := content.read(CHUNK_BYTES):
                    progress.advance(len(piece))


def _names_in_pickles(file: IO[bytes], path: Path) -> set[str]:
    """Checks the names in a file of the older format; gives the names of config classes."""
    return {name for _ in range(LEGACY_PICKLES) for name in _checked_names(file, path)}


def _checked_names(pickled: IO[bytes], path: Path) -> set[str]:
    """The names of config classes in a pickle, which ends where the file then stands.

    Raises:
        CheckpointError: it names something that weights are not made of. ValueError: it is no pickle.
    """
    configs = set()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name not in ("GLOBAL", "INST"):  # STACK_GLOBAL and the like are not read by torch
            continue
        dotted = str(argument).replace(" ", ".")
        if _CONFIG.fullmatch(str(argument)):
            configs.add(dotted)
        elif not _PLAIN.fullmatch(str(argument)):
            raise CheckpointError(
                f"{path} holds more than weights: it names {dotted}, which reading it could run. Nothing of it was "
                "run; save the weights and the config alone with the program that wrote it"
            )
    return configs
