"""Where a run stands: its newest sound checkpoint, found once and loaded on every rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from myna.errors import CheckpointError
from myna.model.checkpoint import load_train_state, newest_sound, set_aside
from myna.model.gpt2 import GPT
from myna.run import Run
from myna.train.average import WeightAverage
from myna.train.optim import restore_optimizer
from myna.train.ranks import Ranks
from myna.train.shard import like

WEIGHTS = (
    "weights"  # the kind of tensor beside Adam's moments, where what is saved as the model is their average
)


def newest_on_main(run: Run, ranks: Ranks, say: Callable[[str], None]) -> Path | None:
    """The newest sound checkpoint, as the main rank finds it; each damaged one on the way is renamed and named."""

    def damaged(path: Path, error: CheckpointError) -> None:
        say(f"{error} Renamed to {set_aside(path).name}.")

    def find() -> str:
        found = newest_sound(run.checkpoints, damaged)
        return found.name if found else ""

    name = ranks.main_does(find)
    return run.checkpoints / name if name else None


def load_checkpoint(
    path: Path, model: GPT, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> dict[str, Any]:
    """Puts a checkpoint's weights and moments into a model, sharded or not, its optimizer, and its average.

    Returns:
        the rest of the training state.
    Raises:
        CheckpointError: it is not a checkpoint of this model.
    """
    tensors, state = load_train_state(path, model)
    saved = GPT.from_pretrained(path).state_dict()
    weights = tensors.pop(WEIGHTS, saved)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if saved[name].shape != parameter.shape:
                raise CheckpointError(f"{path}: {name} has another shape than this recipe's network")
            parameter.copy_(like(weights[name], parameter))
            if average is not None:
                average.values[name].copy_(like(saved[name], parameter))
    restore_optimizer(optimizer, model, tensors, state["optimizer_steps"])
    return state
