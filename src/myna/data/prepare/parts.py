"""The parts of a dataset that several machines make: their folders, and that they belong together.

    OUT.parts/00003-of-00007/            a finished part: a dataset of its share of the corpus
    OUT.parts/00004-of-00007.partial/    one that is not finished

A part's dataset.json has two fields more: `part`, what `join` needs to know of it, and last the hash of the rest.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from myna.data.prepare.inputs import first_difference
from myna.data.prepare.share import Part
from myna.data.shards import open_dataset
from myna.data.sources import cut
from myna.data.split import Dataset
from myna.errors import DataError
from myna.files import json_bytes, sha256_bytes
from myna.parsing import read_object
from myna.paths import cannot_use, quoted

NAME = re.compile(r"([0-9]{5,6})-of-([0-9]{5,6})(\.partial)?")
PARTS_SHOWN = 10


def parts_folder(out: Path) -> Path:
    """Where the parts of a dataset are."""
    return out.parent / f"{out.name}.parts"


def part_folder(out: Path, part: Part) -> Path:
    """Where a part is when it is finished."""
    return parts_folder(out) / f"{part.number:05d}-of-{part.of:05d}"


def part_info(
    info: dict[str, Any],
    part: Part,
    call: Mapping[str, Any],
    totals: Mapping[str, Any],
    archives: bool,
    single: bool,
) -> dict[str, Any]:
    """A part's dataset.json: that of a dataset, what `join` needs, and the hash of the rest.

    Args:
        single: the whole corpus is one document.
    """
    made = {
        "call": {key: value for key, value in call.items() if key != "part"},
        # how the corpus is cut into chunks: parts that count it differently don't fit together
        "part_bytes": cut.PART_BYTES,
        "archives": archives,
        "single": single,
        "totals": dict(totals),
    }
    whole = {**info, "part": made}
    return {**whole, "sha256": sha256_bytes(json_bytes(whole))}


def read_parts(out: Path) -> list[Dataset]:
    """All parts of a dataset, in order.

    Raises:
        DataError: one is missing or damaged, or they don't belong together. The shards are held to their size.
    """
    parts = [_open(part_folder(out, part)) for part in _finished(out)]
    files: Sequence[Mapping[str, Any]] = []
    for number, part in enumerate(parts, 1):
        one, other = (_what_must_agree(dataset.info["part"]) for dataset in (parts[0], part))
        wrong = [key for key in one | other if one.get(key) != other.get(key)]
        if name := first_difference(files or part.info["source"]["files"], part.info["source"]["files"]):
            wrong.append(f"files, such as {name}")
        if wrong:
            raise DataError(
                f"part {number}/{len(parts)} of {out} was made by another call or from another corpus than "
                f"{'part 1' if number == 2 else 'the parts before it'} (different: {', '.join(wrong)}); remove the "
                f"part that is wrong, such as {part.path}, and make it again"
            )
        files = joined_files([files, part.info["source"]["files"]])
    return parts


def joined_files(lists: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What several parts say of the same files, as one list: each knows the hashes of those that it read."""
    found: dict[str, dict[str, Any]] = {}
    for entries in lists:
        for entry in entries:
            found[entry["file"]] = {**found.get(entry["file"], {}), **entry}
    return list(found.values())


def _what_must_agree(made: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same in all parts of a dataset."""
    return {**made["call"], **{key: made[key] for key in ("part_bytes", "archives", "single")}}


def _finished(out: Path) -> list[Part]:
    """The parts 1 to N, if all are finished."""
    folder = parts_folder(out)
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise DataError(cannot_use(error, folder)) from error
    found = [(Part(int(match[1]), int(match[2])), match[3]) for match in map(NAME.fullmatch, names) if match]
    finished = {part for part, partial in found if not partial}
    begun = {part for part, partial in found if partial} - finished
    if not found:
        raise DataError(
            f"{out} has no parts: none is in {folder}; make them with "
            f"`myna prepare CORPUS --part I/N --out {quoted(out)}`"
        )
    largest = max(part.of for part in finished or begun)
    if other := [part for part in finished if part.of != largest]:
        raise DataError(
            f"{folder} holds part {other[0]} and parts of {largest}; remove those that are not wanted"
        )
    wanted = [Part(number, largest) for number in range(1, largest + 1)]
    if missing := [part for part in wanted if part not in finished]:
        shown = [f"{part}{' (begun, not finished)' * (part in begun)}" for part in missing[:PARTS_SHOWN]]
        more = f" and {len(missing) - PARTS_SHOWN:,} more" if len(missing) > PARTS_SHOWN else ""
        raise DataError(
            f"{out} lacks part{'s' * (len(missing) > 1)} {', '.join(shown)}{more}; run the same `myna prepare` with "
            f"--part {missing[0]}"
        )
    return wanted


def _open(folder: Path) -> Dataset:
    """A finished part. Its dataset.json is held to its own hash first, so that nothing in it needs another check.

    Raises:
        DataError: it is no part, or was changed. UnreadableError: it can't be read.
    """
    place, what_to_do = folder / "dataset.json", f"remove {folder} and make that part again"
    info = read_object(place, DataError, what_to_do)
    rest = {key: value for key, value in info.items() if key != "sha256"}
    try:
        is_sound = info.get("sha256") == sha256_bytes(json_bytes(rest))
    except (ValueError, TypeError):  # it holds what JSON of ours never does
        is_sound = False
    if not is_sound:
        raise DataError(f"{place} is no finished part's, or was changed; {what_to_do}")
    return open_dataset(folder, verify=False)
