"""A run's checkpoints: where it stands, found once and loaded on every rank; and the next ones, saved on the way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from myna.errors import CheckpointError
from myna.model.checkpoint import (
    TRAIN_STATE,
    TRAIN_TENSORS,
    checkpoint_step,
    load_train_files,
    newest_sound,
    set_aside,
)
from myna.model.network import Network
from myna.model.weights import load_network
from myna.run import Run
from myna.settings import is_whole
from myna.train.average import WeightAverage
from myna.train.keep.saver import Saver
from myna.train.keep.snapshot import WEIGHTS, Camera
from myna.train.machines.ranks import Ranks
from myna.train.machines.shard import like
from myna.train.optimizers.optimizer import Optimizer
from myna.train.state import TrainState


class Checkpoints:
    """Saves a run's steps: a snapshot at once, on every rank; the main rank writes it while training goes on.

    Args:
        any_before: whether the run already has a checkpoint.
    """

    def __init__(self, camera: Camera, saver: Saver, ranks: Ranks, *, any_before: bool):
        self.camera, self.saver, self.ranks, self.any_before = camera, saver, ranks, any_before
        self.newest_step: int | None = None

    def save(self, state: TrainState) -> None:
        """Saves the step that `state` describes; nothing where that was done already.

        Raises:
            OutputError: the one before could not be written.
        """
        if self.newest_step == state.step:
            return
        if self.ranks.is_main:
            self.saver.join()
        snapshot = self.camera.take(state)
        if self.ranks.is_main:
            self.saver.begin(snapshot)
        self.newest_step = state.step

    def join(self) -> None:
        """Waits until the checkpoint in flight is on the disk; on every rank.

        Raises:
            OutputError: it could not be written.
        """
        if self.ranks.is_main:
            self.saver.join()
        self.ranks.barrier()

    def kept(self) -> str:
        """What a run that ends now keeps, for a message."""
        return kept_words(self.any_before or self.newest_step is not None)

    def failed(self) -> bool:
        """Whether a write has failed that `join` has not told yet."""
        return self.saver.failed()


def kept_words(any_saved: bool) -> str:
    """What a run that ends by an error keeps, for a message."""
    return "the last checkpoint is kept" if any_saved else "no checkpoint was saved yet"


def newest_on_main(run: Run, ranks: Ranks, say: Callable[[str], None]) -> Path | None:
    """The newest sound checkpoint, as the main rank finds it; each damaged one on the way is renamed and named.

    None: the run was never saved, so that it begins at step 0.

    Raises:
        CheckpointError: the run was saved, and no sound checkpoint is left.
        UnreadableError: one can't be read; nothing was renamed for that.
    """

    def damaged(path: Path, error: CheckpointError) -> None:
        say(f"{error} Renamed to {set_aside(path).name}.")

    def find() -> str:
        found = newest_sound(run.checkpoints, damaged)
        if found is None and (why := why_saved(run)):
            raise CheckpointError(
                f"{run.path} was saved before ({why}), and no sound checkpoint is left in {run.checkpoints}; put the "
                "checkpoints back (moved? on a disk that is not mounted?) and give the same command again, or begin "
                "again with a new --out"
            )
        return found.name if found else ""

    name = ranks.main_does(find)
    return run.checkpoints / name if name else None


def why_saved(run: Run) -> str:
    """What shows that a run without a sound checkpoint once had one; empty where it may never have been saved.

    A finished save is in metrics.jsonl. Older versions kept no such record: then the steps tell. A save waits for the
    one before, so a step after the second that was due shows that the first was finished. A report drawn after the
    last step shows that the run ended.
    """
    records = run.metrics()
    if saved := [str(record["checkpoint"]) for record in records if "checkpoint" in record]:
        return f"{run.metrics_path} records {saved[-1]}"
    if any(run.checkpoints.glob("step_*.damaged*")):
        return "its checkpoints are damaged"
    reached = max((record["step"] for record in records if "train_loss" in record), default=0)
    if reached and run.exists():
        recipe = run.recipe()
        every, steps = recipe.get("checkpoint_every", 0), recipe.get("steps")
        if is_whole(every) and 0 < 2 * every < reached:
            return f"{run.metrics_path} goes to step {reached}, and a checkpoint was due every {every} steps"
        if reached == steps and run.report_is_fresh():
            return f"all its {steps} steps are in {run.metrics_path}, and its report was drawn after them"
    return ""


def load_checkpoint(
    path: Path, network: Network, optimizer: Optimizer, average: WeightAverage | None
) -> TrainState:
    """Puts a checkpoint's weights and state into a network, sharded or not, its optimizer, and its average.

    Raises:
        CheckpointError: it is not a checkpoint of this network and optimizer, or of a newer format.
    """
    arrays, raw = load_train_files(path)
    state = TrainState.from_dict(raw, str(path / TRAIN_STATE))
    if state.step != checkpoint_step(path):
        raise CheckpointError(f"{path / TRAIN_STATE} is of step {state.step}; use another checkpoint")
    saved = load_network(path).state_dict()
    tensors = named_tensors(arrays, state, network, str(path / TRAIN_TENSORS))
    weights = saved
    if state.recipe.get("average_decay"):  # then what is saved as the model is the average
        missing = [name for name in saved if f"{WEIGHTS}.{name}" not in tensors]
        if missing:
            raise CheckpointError(
                f"{path / TRAIN_TENSORS} lacks {WEIGHTS}.{missing[0]}; use another checkpoint"
            )
        weights = {name: tensors.pop(f"{WEIGHTS}.{name}") for name in saved}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in saved or not saved[name].shape == weights[name].shape == parameter.shape:
                raise CheckpointError(f"{path}: {name} has another shape than this recipe's network")
            parameter.copy_(like(weights[name], parameter))
            if average is not None:
                average.values[name].copy_(like(saved[name], parameter))
    if tensors or state.optimizer_steps:
        optimizer.load_named_state(tensors, str(path / TRAIN_TENSORS))
    return state


def named_tensors(
    arrays: dict[str, np.ndarray], state: TrainState, network: Network, where: str
) -> dict[str, Tensor]:
    """The tensors of train_state.safetensors as KIND.PARAMETER, with padding, whatever format the file has."""
    if state.format == 1:
        return _of_format_1(arrays, state, network, where)
    # Copies: what was read is a view of the file, which retention may remove while the optimizer goes on with it.
    return {
        key: network.padded(key.partition(".")[2], torch.from_numpy(array.copy()))
        for key, array in arrays.items()
    }


def _of_format_1(
    arrays: dict[str, np.ndarray], state: TrainState, network: Network, where: str
) -> dict[str, Tensor]:
    """Format 1 had each kind in the layout of the model's file, and the number of updates in the JSON alone."""
    kinds: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        kind, _, rest = name.partition(".")
        kinds.setdefault(kind, {})[rest] = array
    tensors = {
        f"{kind}.{name}": tensor
        for kind, group in kinds.items()
        for name, tensor in network.layout.from_file(network, group, where).items()
    }
    for name, _ in network.named_parameters():
        if f"exp_avg.{name}" in tensors:
            tensors[f"step.{name}"] = torch.tensor(float(state.optimizer_steps))
    return tensors
