"""A run folder: plain files whose names are fixed, appended to and read back.

recipe.json         what was asked, resolved: every field, with the micro-batch that `auto` chose
environment.json    versions, device, commit
metrics.jsonl       an object per optimizer step and per evaluation
samples.jsonl       what the model wrote on the way
checkpoints/        see myna.model.checkpoint
report.png          the curves
report.html         the curves, a verdict and the samples, as one page
wandb_id.txt        with `--track wandb`: the run there
.lock               held by the process that trains here

A folder that `myna import` made of another program's log has recipe.json and metrics.jsonl, and no model.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from myna.errors import DataError, OutputError, UnreadableError
from myna.files import json_bytes, reading, write_atomic
from myna.locks import lock_is_held, locked
from myna.parsing import parse_json, read_object
from myna.paths import cannot_use

# A run whose lock tells nothing counts as written to for so long after its last record.
QUIET_SECONDS = 120.0
# In recipe.json: the log of another program that the records are from.
LOG_KEY = "log"


class Run:
    """The names in a run folder, and its records.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.recipe_path = self.path / "recipe.json"
        self.environment_path = self.path / "environment.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.samples_path = self.path / "samples.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.report_path = self.path / "report.png"
        self.page_path = self.path / "report.html"
        self.tracker_path = self.path / "wandb_id.txt"
        self.lock_path = self.path / ".lock"

    @property
    def records(self) -> list[Path]:
        """Its small files but for the report: what another machine needs to go on and to draw it."""
        return [
            self.recipe_path,
            self.environment_path,
            self.tracker_path,
            self.metrics_path,
            self.samples_path,
        ]

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.recipe_path.exists()

    def why_no_model(self) -> str:
        """What to say to a person who takes a log for a model; "" for a run of ours, and where nobody can tell."""
        with contextlib.suppress(DataError, UnreadableError):
            log = self.recipe().get(LOG_KEY)
            if isinstance(log, dict):
                whose = log.get("program")
                return (
                    f"{self.path} is the log of a run of {whose}, without its model: `myna report` draws it"
                )
        return ""

    def locked(self) -> contextlib.AbstractContextManager[int]:
        """Within the block no other process can train here.

        Raises:
            OutputError: another process does; says which. Or the place can't be locked.
        """
        busy = f"{self.path} is being trained in by {{holder}}; wait for it, stop it, or give another --out"
        return locked(self.lock_path, busy=busy)

    def free_bytes(self) -> int:
        """What the disk of the checkpoints has left; they may lie on another one than the folder."""
        return shutil.disk_usage(self.checkpoints if self.checkpoints.exists() else self.path).free

    def modified(self) -> float:
        """When it last wrote what it is or did, in seconds since 1970; 0 where nothing is there."""
        return max(map(_modified_at, (self.recipe_path, self.metrics_path, self.samples_path)))

    def is_written(self) -> tuple[bool, Literal["lock", "mtime"]]:
        """Whether a process trains here now, and how that is known: by the lock, or by the time alone."""
        held = lock_is_held(self.lock_path)
        if held is not None:
            return held, "lock"
        return time.time() - self.modified() < QUIET_SECONDS, "mtime"

    def report_is_fresh(self) -> bool:
        """Whether the report was drawn after the last record."""
        try:
            return self.report_path.stat().st_mtime_ns >= self.metrics_path.stat().st_mtime_ns
        except FileNotFoundError:
            return False

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Records the resolved recipe."""
        write_atomic(self.recipe_path, json_bytes(dict(recipe)))

    def recipe(self) -> dict[str, Any]:
        """The resolved recipe.

        Raises:
            DataError: there is none, or it holds something else. UnreadableError: it can't be read.
        """
        what = "a file, not a run" if self.path.is_file() else "not a run: it has no recipe.json"
        missing = f"{self.path} is {what}; give a folder that `myna train` made"
        what_to_do = "restore the file, or give another --out"
        return read_object(self.recipe_path, DataError, what_to_do, missing=missing)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Records the machine the run is on now."""
        write_atomic(self.environment_path, json_bytes(dict(environment)))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one record; it has at least `step` (finished updates) and `tokens`."""
        _append_line(self.metrics_path, record)

    def append_sample(self, record: Mapping[str, Any]) -> None:
        """Adds one sample: `step`, `prompt` and `text`."""
        _append_line(self.samples_path, record)

    def metrics(self) -> list[dict[str, Any]]:
        """All records by step; of a step that ran twice (a crash, then a resume) the later record.

        Training steps and evaluations are told apart by their keys, so each keeps its own latest.
        """
        latest: dict[tuple[int, frozenset[str]], dict[str, Any]] = {}
        for record in _read_lines(self.metrics_path):
            if isinstance(record.get("step"), int):
                latest[record["step"], frozenset(record)] = record
        return sorted(latest.values(), key=lambda record: record["step"])

    def samples(self) -> list[dict[str, Any]]:
        """All samples, in the order written."""
        return list(_read_lines(self.samples_path))


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _append_line(path: Path, record: Mapping[str, Any]) -> None:
    line = json.dumps(dict(record), ensure_ascii=False).encode("utf-8") + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if (
                end and os.pread(descriptor, 1, end - 1) != b"\n"
            ):  # a crash cut the last line: ours starts anew
                line = b"\n" + line
            while line:  # a disk that is filling up takes a part
                line = line[os.write(descriptor, line) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutputError(f"{cannot_use(error, path)}, then run it again") from error


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    if not path.is_file():
        raise DataError(f"{path} is no file, so the run's records are lost; remove it, or give another run")
    with reading(path), open(path, "rb") as file:
        for line in file:
            try:
                record = parse_json(line)
            except ValueError:
                continue  # a line that a crash cut
            if isinstance(record, dict):
                yield record
