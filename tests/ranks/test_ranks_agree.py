"""Several processes train what one would."""

import subprocess
import sys

import pytest

from myna.run import Run


def torchrun(ranks, args, env):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        "-m",
        "myna",
        "train",
    ]
    return subprocess.run([*command, *args], env=env, capture_output=True, text=True, timeout=300)


def losses(out, key="train_loss"):
    return [r[key] for r in Run(out).metrics() if key in r]


@pytest.mark.parametrize("ranks", [2])
def test_ranks_see_the_batches_of_one(small_run, tmp_path, child_environment, ranks):
    """Same global batches, so the same losses, validation included; saved by two, finished by one."""
    args = [
        *small_run,
        "--dropout",
        "0",
        "--micro-batch",
        "2",
        "--checkpoint-every",
        "10",
        "--eval-every",
        "10",
    ]
    alone = subprocess.run(
        [sys.executable, "-m", "myna", "train", *args, "--steps", "20", "--out", tmp_path / "one"],
        env=child_environment, capture_output=True, text=True,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    together = torchrun(ranks, [*args, "--steps", "20", "--out", str(tmp_path / "many")], child_environment)
    assert together.returncode == 0, together.stderr
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert losses(tmp_path / "many", "val_loss") == pytest.approx(
        losses(tmp_path / "one", "val_loss"), abs=1e-5
    )

    (tmp_path / "many" / "checkpoints" / "step_00000020").rename(tmp_path / "away")
    again = subprocess.run(
        [sys.executable, "-m", "myna", "train", *args, "--steps", "20", "--out", tmp_path / "many"],
        env=child_environment, capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "resuming after step 10" in again.stdout
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_a_batch_the_ranks_do_not_divide_is_refused(small_run, tmp_path, child_environment):
    result = torchrun(3, [*small_run, "--steps", "1", "--out", str(tmp_path / "run")], child_environment)
    assert result.returncode != 0
    assert "does not divide among 3 ranks" in result.stderr
    assert not (tmp_path / "run").exists()
