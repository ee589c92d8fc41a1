"""A second machine goes on with a run from its copy."""

import os
import shutil
import signal

import pytest

from myna.commands import train as command
from myna.errors import Stopped
from myna.model.checkpoint import MANIFEST, verify
from myna.run import Run


@pytest.fixture(scope="module")
def pair(tmp_path_factory, small_run):
    """The folder of two steps of a run, `first`, and of its `copy`."""
    folder = tmp_path_factory.mktemp("pair")
    call = ["--steps", "2", "--checkpoint-every", "1", "--out", str(folder / "first")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        command.main([*small_run, *call, "--copy-to", f"file://{folder}/copy"])
    return folder


@pytest.fixture
def copied(pair, tmp_path):
    """A copy of the run's copy, to be changed."""
    shutil.copytree(pair / "copy", tmp_path / "copy")
    return tmp_path / "copy"


def test_the_copy_is_a_run_like_the_first(pair):
    first, copy, copied = Run(pair / "first"), Run(pair / "copy"), pair / "copy"
    own = {path.relative_to(first.path) for path in first.path.rglob("*")}
    assert {path.relative_to(copied) for path in copied.rglob("*")} == own - {
        first.lock_path.relative_to(first.path)
    }
    assert copy.metrics() == first.metrics()
    assert copy.report_path.read_bytes() == first.report_path.read_bytes()


def test_a_second_machine_goes_on_to_the_same_weights(pair, copied, train, tmp_path, hashes, capsys):
    args = ("--checkpoint-every", 1, "--copy-to", f"file://{copied}", "--override")
    train(tmp_path / "second", 4, *args)
    said = capsys.readouterr().out
    assert f"holds no run: fetching the one at file://{copied}" in said
    assert "resuming after step 2" in said
    shutil.copytree(pair / "first", tmp_path / "whole")
    train(tmp_path / "whole", 4, "--checkpoint-every", 1, "--override")
    assert hashes(tmp_path / "second", 4) == hashes(tmp_path / "whole", 4) == hashes(copied, 4)
    steps = [record["step"] for record in Run(copied).metrics() if "train_loss" in record]
    assert steps == [1, 2, 3, 4]


def test_the_older_checkpoint_where_the_newest_is_half_copied(copied, train, tmp_path, capsys):
    (copied / "checkpoints" / "step_00000002" / MANIFEST).unlink()
    with pytest.warns(UserWarning, match="its copy is not finished; looking at the one before step_00000002"):
        train(tmp_path / "second", 2, "--checkpoint-every", 1, "--copy-to", f"file://{copied}")
    assert "resuming after step 1" in capsys.readouterr().out


def test_a_copy_without_a_sound_checkpoint_is_refused(copied, refused, tmp_path):
    for step in (1, 2):
        path = copied / "checkpoints" / f"step_0000000{step}" / "config.json"
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.warns(UserWarning, match="is damaged"):
        said = refused("--out", tmp_path / "second", "--steps", 2, "--copy-to", f"file://{copied}")
    assert "copy has no sound checkpoint" in said
    assert not Run(tmp_path / "second").exists()


def test_what_was_cut_off_is_fetched_to_its_end(copied, train, tmp_path, monkeypatch, capsys):
    from myna.store.remote import Remote

    fetch = Remote.fetch

    def cut(self, wanted, into):
        if self.name == "copy":
            raise KeyboardInterrupt
        fetch(self, wanted, into)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "fetch", cut)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "second", 2, "--copy-to", f"file://{copied}")
    assert not Run(tmp_path / "second").exists()
    train(tmp_path / "second", 2, "--copy-to", f"file://{copied}")
    assert "is finished: 2 of 2 steps" in capsys.readouterr().out


def test_a_run_that_a_signal_stops_has_sent_its_last_step(train, tmp_path, monkeypatch):
    append = Run.append_metrics

    def stopping(self, record):
        append(self, record)
        if record["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "append_metrics", stopping)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        train(tmp_path / "run", 9, "--copy-to", f"file://{tmp_path}/copy")
    run, copy = Run(tmp_path / "run"), Run(tmp_path / "copy")
    assert copy.metrics() == run.metrics()
    (saved,) = copy.checkpoints.iterdir()
    assert saved.name == max(path.name for path in run.checkpoints.iterdir())
    verify(saved)


def test_never_is_never(copied, refused, tmp_path):
    call = ("--steps", 2, "--resume", "never", "--copy-to", f"file://{copied}")
    assert "copy holds a run already, and --resume is never" in refused("--out", tmp_path / "second", *call)
    assert not (tmp_path / "second").exists()


def test_the_copy_of_another_run_is_not_overwritten(copied, train, refused, tmp_path):
    before = Run(copied).metrics_path.read_bytes()
    train(tmp_path / "other", 1, "--seed", 5)
    said = refused("--out", tmp_path / "other", "--seed", 5, "--steps", 1, "--copy-to", f"file://{copied}")
    assert f"--copy-to: file://{copied} holds another run than {tmp_path}/other" in said
    assert Run(copied).metrics_path.read_bytes() == before


def test_a_place_that_cannot_be_looked_at_is_told(refused, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ConnectionResetError("the store went away")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.ls", fails)
    said = refused("--out", tmp_path / "run", "--steps", 2, "--copy-to", f"file://{tmp_path}/copy")
    assert "--copy-to: cannot read file://" in said
    assert "or leave --copy-to out" in said
    assert not (tmp_path / "run").exists()
