"""Runs that older code wrote go on: see run_before_networks/make.py for what lies there, and how it was made."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from myna.cli import main
from myna.run import Run
from myna.train.state import FORMAT

OLD = Path(__file__).parent / "run_before_networks"
FLAGS = json.loads((OLD / "flags.json").read_text("utf-8"))
EXPECTED = json.loads((OLD / "expected.json").read_text("utf-8"))
NATS = 1e-5


@pytest.fixture
def old_run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy, so that the old run stays as it is. Git keeps no times, and the copy's are new."""
    return Path(shutil.copytree(OLD / request.param, tmp_path / "run"))


either = pytest.mark.parametrize("old_run", FLAGS, indirect=True)


@either
def test_the_same_command_finishes_it_with_the_same_losses(old_run, request, capsys):
    name = request.node.callspec.params["old_run"]
    train = ["train", "shakespeare-char", *FLAGS[name].split()]
    assert main([*train, "--data", str(OLD / "data"), "--out", str(old_run)]) == 0
    assert "resuming after step 12" in capsys.readouterr().out
    found: dict[str, dict[str, float]] = {}
    for record in Run(old_run).metrics():
        found.setdefault(str(record["step"]), {}).update(record)
    if "--dropout" in FLAGS[name] and dropout_draws() != EXPECTED["dropout_draws"]:
        pytest.skip("this build of torch draws dropout otherwise than the one that made the expected losses")
    for step, expected in EXPECTED[name].items():
        assert {key: found[step][key] for key in expected} == pytest.approx(expected, abs=NATS), step


@either
def test_it_is_saved_in_the_newest_format_and_goes_on_from_there(old_run, request):
    name = request.node.callspec.params["old_run"]
    train = [
        "train",
        "shakespeare-char",
        *FLAGS[name].split(),
        "--data",
        str(OLD / "data"),
        "--out",
        str(old_run),
    ]
    assert main(train) == 0
    last = old_run / "checkpoints" / "step_00000024"
    assert json.loads((last / "train_state.json").read_text("utf-8"))["format"] == FORMAT
    assert main([*train, "--steps", "26", "--extend"]) == 0
    assert (old_run / "checkpoints" / "step_00000026").is_dir()


def dropout_draws() -> str:
    """As make.py has it."""
    torch.manual_seed(0)
    return "".join(str(int(kept > 0)) for kept in torch.nn.functional.dropout(torch.ones(64), 0.5))


@either
def test_it_writes(old_run, capsys):
    assert main(["sample", str(old_run), "--prompt", "1 bird", "--max-tokens", "40", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("1 bird")


@either
def test_it_is_scored(old_run, capsys):
    """Its validation loss is the one that the old code recorded at the checkpoint."""
    (recorded,) = [r["val_loss"] for r in Run(old_run).metrics() if r["step"] == 12 and "val_loss" in r]
    call = [
        "eval",
        str(old_run),
        "--task",
        "val",
        "--data",
        str(OLD / "data"),
        "--json",
        "--precision",
        "fp32",
    ]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["val_loss"] == pytest.approx(recorded, abs=NATS)


@either
def test_it_is_drawn(old_run, tmp_path):
    assert main(["report", str(old_run), "--out", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 1000
