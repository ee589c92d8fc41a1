"""Whether this tree computes the numbers of an older commit, bit for bit, on this machine.

    python tests/parity/same_numbers.py                    # against the commit before networks became exchangeable
    python tests/parity/same_numbers.py --before COMMIT
    python tests/parity/same_numbers.py --self-test        # this tree against itself, with tiny changes in one

Both trees run numbers_worker.py, each in a process of its own, with the same Python and the same packages: fp32 on
the CPU, not compiled, a fixed number of threads. Compared are prepared shards, every loss and gradient norm of two
small trainings, weights and moments, generated ids, validation and HellaSwag sums, and how old runs go on.

Exit code: 0 all equal; 1 something differs (in the self-test: 0 if every section noticed); 3 nothing to compare with.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "c9680ed"  # the last commit with one network and one optimizer
ITEMS = ROOT.parent / "shared" / "data" / "hellaswag_val_first500.jsonl"
N_ITEMS = 50
SHOWN = 3  # differences of a section that are printed
NOTHING_TO_COMPARE = 3


def extract(commit: str, folder: Path) -> Path | None:
    """Puts the sources of a commit into a folder; returns its `src`, or None where git or the commit is absent."""
    git = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "src"]
    try:
        archive = subprocess.run(git, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def numbers_of(source: Path, folder: Path, threads: int, options: list[str]) -> dict[str, Any]:
    """Runs the worker with one tree's sources."""
    folder.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": str(threads),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    worker = str(Path(__file__).with_name("numbers_worker.py"))
    command = [sys.executable, "-P", worker, str(folder), *options]
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"the worker failed with the sources in {source}, exit code {done.returncode}")
    found = json.loads((folder / "numbers.json").read_text("utf-8"))
    if Path(found["tree"]) != source.resolve():
        sys.exit(f"asked for the sources in {source}, Python took those in {found['tree']}")
    return found["numbers"]


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text in nested dicts and lists, with its place."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from leaves(inside, f"{place} / {key}" if place else str(key))
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from leaves(inside, f"{place}[{number}]")
    else:
        yield place, value


def differences(before: Any, after: Any) -> tuple[int, list[str]]:
    """How many values there are, and a line for each that differs. JSON keeps every bit of a float.

    >>> differences({"loss": [1.0, 2.0]}, {"loss": [1.0, 2.5]})
    (2, ['loss[1]: 2.0 before, 2.5 now'])
    """
    old, new = dict(leaves(before)), dict(leaves(after))
    places = [*old, *(place for place in new if place not in old)]
    lines = [
        f"{place}: {old.get(place, 'absent')!r} before, {new.get(place, 'absent')!r} now"
        for place in places
        if place not in old or place not in new or repr(old[place]) != repr(new[place])
    ]
    return len(places), lines


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Prints what is equal and what is not; returns the names of the sections that differ."""
    different = []
    for section in before:
        count, lines = differences(before[section], after.get(section))
        if not lines:
            print(f"{section}: {count:,} values, all equal")
            continue
        different.append(section)
        print(f"{section}: {len(lines):,} of {count:,} values differ")
        for line in lines[:SHOWN]:
            print(f"  {line}")
    return different


def first_items(folder: Path) -> list[str]:
    """The worker's option for some HellaSwag items, where they lie beside this checkout."""
    if not ITEMS.exists():
        print(f"hellaswag: left out, since {ITEMS.name} is not beside this checkout")
        return []
    some = folder / "items.jsonl"
    lines = ITEMS.read_text("utf-8").splitlines(keepends=True)
    some.write_text("".join(lines[:N_ITEMS]), "utf-8")
    return ["--items", str(some)]


def main() -> int:
    """Compares; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of both")
    parser.add_argument("--self-test", action="store_true", help="show that each comparison can fail")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = ROOT / "src" if call.self_test else extract(call.before, folder)
        if source is None:
            print(f"skipped: git has no commit {call.before} here (a shallow clone, or no clone)")
            return NOTHING_TO_COMPARE
        items = first_items(folder)
        perturb = ["--perturb"] if call.self_test else []
        before = numbers_of(source, folder / "before", call.threads, items)
        after = numbers_of(ROOT / "src", folder / "after", call.threads, items + perturb)
        different = compare(before, after)
    if call.self_test:
        return int(set(different) != before.keys() - {"prepared"})
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
