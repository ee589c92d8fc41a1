"""A loss or gradient that is not finite on one of two ranks stops both before the update, named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from myna.files import sha256_file

PROGRAM = Path(__file__).parent / "poisoned.py"
STEPS = 22


def check(small_run, folder, env, poisons):
    arguments = [*small_run[1:], "--micro-batch", "2", "--steps", str(STEPS), "--checkpoint-every", "1"]
    texts = [":".join(map(str, poison)) for poison in poisons]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(PROGRAM),
    ]
    done = subprocess.run(
        [*command, str(folder), "99:0:loss", *texts, "--", *arguments],
        env=env | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    (error, saved, _), *stopped = ranks[0]
    assert error == ""  # the undisturbed run
    assert saved == list(range(STEPS, 0, -1))
    for (step, rank, where), (error, saved, weights) in zip(poisons, stopped, strict=True):
        what = "the loss is nan" if where == "loss" else "the gradient's norm is "
        assert error.startswith(f"step {step}: {what}")
        assert f", from rank {rank} of 2; nothing was updated" in error
        assert saved == list(range(step - 1, 0, -1))
        undisturbed = folder / "run0" / "checkpoints" / f"step_{step - 1:08d}" / "model.safetensors"
        assert weights == sha256_file(undisturbed)


def test_loss_and_gradient(small_run, tmp_path, child_environment):
    check(small_run, tmp_path, child_environment, [(3, 1, "loss"), (2, 0, "gradient")])


@pytest.mark.slow
def test_at_each_of_twenty_steps(small_run, tmp_path, child_environment):
    poisons = [(step, step % 2, ("loss", "gradient")[step // 2 % 2]) for step in range(2, 22)]
    check(small_run, tmp_path, child_environment, poisons)
