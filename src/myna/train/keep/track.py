"""Trackers beside metrics.jsonl, through their own libraries: Weights & Biases, TensorBoard.

They get what metrics.jsonl gets. Keys and logins are the libraries' own affair (`wandb login`): none passes through
here.
"""

import contextlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from myna.errors import UsageError, first_line
from myna.files import write_atomic
from myna.run import Run

TrackerName = Literal["none", "wandb", "tensorboard"]


class Tracker(Protocol):
    """Something that takes the records of a run."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """The values of a step."""

    def close(self) -> None:
        """No more will come."""


class NoTracker:
    """metrics.jsonl alone."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """Event files in RUN/tensorboard; after a resume the steps made again replace those before."""

    def __init__(self, run: Run, first_step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first_step + 1)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run in the project `myna`; a resume goes on with the same one, whose id lies in RUN/wandb_id.txt."""

    def __init__(self, run: Run, recipe: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        id_path, folder = run.tracker_path, run.path / "wandb"
        new, new_folder = not id_path.exists(), not folder.exists()
        if new:
            write_atomic(id_path, secrets.token_hex(4).encode("ascii") + b"\n")
        try:
            self.run = wandb.init(
                project="myna",
                name=run.path.name,
                id=id_path.read_text("ascii").strip(),
                resume="allow",
                dir=str(run.path),
                config=dict(recipe),
                # It would keep the command line, passwords in URLs included; environment.json has what may be kept.
                settings=wandb.Settings(x_disable_meta=True),
            )
        except wandb.errors.Error as error:
            if new:
                with contextlib.suppress(OSError):
                    id_path.unlink()
            if new_folder:
                shutil.rmtree(folder, ignore_errors=True)
            raise UsageError(
                f"--track wandb: {first_line(error)}; `wandb login` first, or leave --track out"
            ) from error

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def open_tracker(name: TrackerName, run: Run, recipe: Mapping[str, Any], first_step: int) -> Tracker:
    """The tracker of that name.

    Raises:
        UsageError: its library is not installed.
    """
    if name == "wandb":
        return WeightsAndBiases(run, recipe)
    return TensorBoard(run, first_step) if name == "tensorboard" else NoTracker()


def _missing(name: str) -> UsageError:
    return UsageError(f"--track {name} needs its library: pip install 'myna[track]'")
