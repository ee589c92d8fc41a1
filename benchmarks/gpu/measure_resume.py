"""Whether a resumed run is the run: GPT-2 124M trained for 8 steps, and again from its checkpoint of step 4."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from gpu import arguments
from gpu.training import myna, prepared, recipe
from myna.run import Run

STEPS, HALF = 8, 4
FILES = ("model.safetensors", "train_state.safetensors")


def main() -> None:
    """Prints the value."""
    call = arguments.read(__doc__)
    data = prepared(call.tiny)
    straight, resumed = Path("straight"), Path("resumed")
    for out in (straight, resumed):
        shutil.rmtree(out, ignore_errors=True)
    # Small steps: what is compared does not depend on their size.
    small = [] if call.tiny else ["--batch-tokens", "65536", "--micro-batch", "16"]
    train = [
        *(
            "train",
            *recipe(call.tiny),
            *small,
            "--data",
            str(data),
            "--device",
            call.device,
            "--steps",
            str(STEPS),
        ),
        *("--checkpoint-every", str(HALF), "--eval-every", "0", "--sample-every", "0"),
    ]
    myna(*train, "--out", str(straight))
    shutil.copytree(straight, resumed)
    shutil.rmtree(step_folder(resumed, STEPS))
    myna(*train, "--out", str(resumed))
    differences = {name: difference(straight, resumed, name) for name in FILES}
    losses = [
        {record["step"]: record["train_loss"] for record in Run(out).metrics() if "train_loss" in record}
        for out in (straight, resumed)
    ]
    value = {
        "steps": [HALF, STEPS],
        "weights_difference": differences[FILES[0]],
        "state_difference": differences[FILES[1]],
        "loss_difference": max(abs(losses[0][n] - losses[1][n]) for n in range(HALF + 1, STEPS + 1)),
    }
    print(json.dumps(value))


def step_folder(out: Path, step: int) -> Path:
    """A run's checkpoint."""
    return out / "checkpoints" / f"step_{step:08d}"


def difference(straight: Path, resumed: Path, name: str) -> float:
    """The largest difference between two files of tensors; 0 where all bits are equal."""
    one, other = (load_file(step_folder(out, STEPS) / name) for out in (straight, resumed))
    assert one.keys() == other.keys()
    if all(torch.equal(tensor, other[key]) for key, tensor in one.items()):
        return 0.0
    return max(float((tensor.double() - other[key].double()).abs().max()) for key, tensor in one.items())


if __name__ == "__main__":
    main()
