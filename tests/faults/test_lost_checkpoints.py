"""A run that was saved and has no sound checkpoint left does not begin again in silence."""

import json
import shutil

import pytest

from myna.cli import main
from myna.commands import train_end

LOST = "no sound checkpoint is left in"


@pytest.fixture(scope="module")
def trained(small_run, tmp_path_factory):
    """A finished run of six steps, a checkpoint every two, of which the last is kept."""
    out = tmp_path_factory.mktemp("trained") / "run"
    more = ["--steps", "6", "--checkpoint-every", "2", "--keep-last", "1", "--out", str(out)]
    assert main(["train", *small_run, *more]) == 0
    return out


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Drawing takes longer than these runs."""
    monkeypatch.setattr(train_end, "report", lambda runs, path: path.touch())


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


EVERY = ("--checkpoint-every", 2)


def contents(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def without_records(run):
    """As an older version left the run: saves are not in the metrics."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if '"checkpoint"' not in line))


def test_moved_it_stops_and_put_back_it_goes_on(copied, refused, train, tmp_path, capsys):
    away = (copied / "checkpoints").rename(tmp_path / "away")
    before = contents(copied)
    for more in ((), ("--override",), ("--extend", "--steps", 9), ("--steps", 9, "--override")):
        said = refused("--out", copied, "--steps", 6, *EVERY, *more)
        assert LOST in said
        assert "metrics.jsonl records step_00000006" in said
        assert "put the checkpoints back" in said
        assert "begin again with a new --out" in said
    assert contents(copied) == before
    assert not (copied / "checkpoints").exists()
    (copied / "checkpoints").mkdir()  # as the empty place of a disk that is not mounted
    assert LOST in refused("--out", copied, "--steps", 6, *EVERY)
    (copied / "checkpoints").rmdir()
    away.rename(copied / "checkpoints")
    train(copied, 9, "--extend", *EVERY)
    assert "resuming after step 6" in capsys.readouterr().out


def test_all_damaged_each_is_renamed_and_the_run_stops(copied, refused, capsys):
    newest = copied / "checkpoints" / "step_00000006"
    with open(newest / "model.safetensors", "ab") as file:
        file.write(b"more")
    call = [*map(str, EVERY), "--steps", "6", "--out", str(copied)]
    assert LOST in refused(*call)
    assert not newest.exists()
    assert (copied / "checkpoints" / "step_00000006.damaged").is_dir()
    assert LOST in refused(*call)
    without_records(copied)  # the renamed one shows that there was a save
    (copied / "report.png").unlink()
    assert "(its checkpoints are damaged)" in refused(*call)


def test_an_older_runs_steps_tell_that_it_was_saved(copied, refused):
    without_records(copied)
    shutil.rmtree(copied / "checkpoints")
    (copied / "report.png").unlink()
    said = refused("--out", copied, "--steps", 6, *EVERY)
    assert "goes to step 6, and a checkpoint was due every 2 steps" in said
    assert LOST in said


def test_so_does_its_report_where_it_was_saved_once(copied, refused):
    without_records(copied)
    shutil.rmtree(copied / "checkpoints")
    recipe = json.loads((copied / "recipe.json").read_text()) | {"checkpoint_every": 0}
    (copied / "recipe.json").write_text(json.dumps(recipe))
    (copied / "report.png").touch()
    said = refused("--out", copied, "--steps", 6, "--checkpoint-every", 0)
    assert "all its 6 steps are in" in said
    assert LOST in said


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_that_was_killed_before_its_first_save_begins_at_step_0(copied, trained, train, hashes, steps):
    """Up to the second save that is due, the first may still be on its way to the disk."""
    without_records(copied)
    shutil.rmtree(copied / "checkpoints")
    (copied / "report.png").unlink()
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text(
        "".join(line for line in lines if json.loads(line)["step"] <= steps)
    )
    train(copied, 6, *EVERY)
    assert hashes(copied, 6) == hashes(trained, 6)


def test_what_retention_removed_is_not_missing(copied, train, capsys):
    assert [p.name for p in (copied / "checkpoints").iterdir()] == ["step_00000006"]
    train(copied, 6, *EVERY)
    assert "is finished: 6 of 6 steps" in capsys.readouterr().out


@pytest.mark.parametrize("call", [["sample", "--prompt", "1"], ["eval", "--task", "val"]])
def test_other_commands_say_where_they_looked(copied, capsys, call):
    shutil.rmtree(copied / "checkpoints")
    assert main([call[0], str(copied), *call[1:]]) == 2
    said = capsys.readouterr().err
    assert f"has no sound checkpoint in {copied / 'checkpoints'}; put it back if it was moved" in said
    assert said.count("\n") == 1
