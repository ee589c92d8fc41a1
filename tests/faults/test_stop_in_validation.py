"""SIGTERM while validation runs: no further batch begins, the step is saved, and the resumed run validates it once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from myna.cli import main
from myna.commands import train_evaluations
from myna.run import Run

from . import stop_in_validation

SCRIPT = Path(stop_in_validation.__file__)


@pytest.fixture
def args(small_run, tmp_path):
    plan = ["--steps", "6", "--eval-every", "3", "--checkpoint-every", "0", "--out", str(tmp_path / "run")]
    return ["train", *small_run, *plan]


def validated(out):
    """The step of each validation in metrics.jsonl, as often as it stands there."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "val_loss" in json.loads(line)]


@pytest.mark.parametrize("call", [1, 2, 3])
def test_one_rank(args, tmp_path, monkeypatch, call, capsys):
    """In the validation before step 1, in one on the way, and in the last."""
    out, passes = tmp_path / "run", []
    sums = train_evaluations.validation_sums
    monkeypatch.setattr(train_evaluations, "validation_sums", stop_in_validation.stopping(sums, call, passes))
    assert main(args) == 75
    assert len(passes) == call
    assert passes[-1] == stop_in_validation.SIGNAL_BEFORE - 1
    step = 3 * (call - 1)
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step_{step:08d}"]
    assert validated(out) == list(range(0, step, 3))
    assert f"after step {step}, which is saved" in capsys.readouterr().err
    monkeypatch.setattr(train_evaluations, "validation_sums", sums)
    assert main(args) == 0
    assert validated(out) == [0, 3, 6]
    assert (out / "report.png").exists()


def test_the_continuation_is_that_of_an_undisturbed_run(args, tmp_path, monkeypatch):
    passes = []
    sums = train_evaluations.validation_sums
    monkeypatch.setattr(train_evaluations, "validation_sums", stop_in_validation.stopping(sums, 2, passes))
    assert main(args) == 75
    assert main(args) == 0
    assert main([*args[:-1], str(tmp_path / "undisturbed")]) == 0
    stopped, undisturbed = (
        [(r["step"], r["train_loss"]) for r in Run(tmp_path / name).metrics() if "train_loss" in r]
        for name in ("run", "undisturbed")
    )
    assert stopped == undisturbed


def test_two_ranks(args, tmp_path, child_environment):
    """Rank 1 alone gets the signal; both end before the same batch."""
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(SCRIPT), "2", *args]
    stopped = subprocess.run(command, env=child_environment, capture_output=True, text=True)
    assert stopped.returncode != 0
    batches = dict(re.findall(r"rank (\d): batches \[(.*)\]", stopped.stdout))
    assert batches["0"] == batches["1"]
    assert batches["1"].endswith(f", {stop_in_validation.SIGNAL_BEFORE - 1}")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_00000003"]
    assert validated(out) == [0]
    assert main(args) == 0
    assert validated(out) == [0, 3, 6]
