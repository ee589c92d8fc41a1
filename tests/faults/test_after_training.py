"""What fails after the last step costs no training, and the message says where the weights are."""

import pytest

from myna.cli import main
from myna.commands import train_end
from myna.errors import OutputError, UnreadableError
from myna.model.checkpoint import verify
from myna.run import Run
from myna.train.keep import copies, saver


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes longer than these runs."""
    monkeypatch.setattr(train_end, "report", lambda runs, path: path.touch())


@pytest.fixture
def safe_after(refused, train, tmp_path):
    """Trains with something that fails after the last step; then, with it mended, the same command ends well."""

    def check(mend, *more):
        run = Run(tmp_path / "run")
        said = refused("--out", run.path, "--steps", 2, *more)
        newest = run.checkpoints / "step_00000002"
        assert f"; the weights are safe in {newest}, and the same command makes up for the rest" in said
        verify(newest)
        before = newest.stat().st_mtime_ns
        mend()
        train(run.path, 2, *more)
        assert newest.stat().st_mtime_ns == before
        assert run.report_is_fresh()
        return said

    return check


def test_a_report_that_cannot_be_written(safe_after, tmp_path):
    place = tmp_path / "run" / "report.png"
    place.mkdir(parents=True)
    said = safe_after(place.rmdir)
    assert f"cannot write {place}: Is a directory" in said


def test_a_report_that_cannot_be_drawn(safe_after):
    def fails(*_):
        raise RuntimeError("no font\nand more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_end, "report", fails)
        said = safe_after(patch.undo)
    assert "report.png: RuntimeError: no font; once that is mended, `myna report" in said


def test_a_copy_that_cannot_be_made(no_picture, safe_after, tmp_path):
    def fails(self, path):
        raise ConnectionResetError("the store went away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "FIRST_WAIT_S", 0.001)
        patch.setattr(copies.Copier, "_put", fails)
        said = safe_after(patch.undo, "--copy-to", f"file://{tmp_path}/copies")
    assert "cannot copy step_00000002" in said
    verify(tmp_path / "copies" / "checkpoints" / "step_00000002")


def test_a_score_that_cannot_be_kept(no_picture, safe_after):
    append = Run.append_metrics

    def fails(self, record):
        if record["step"] == 2 and "val_loss" in record:
            raise OutputError("cannot append to metrics.jsonl: no room")
        append(self, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "append_metrics", fails)
        said = safe_after(patch.undo, "--eval-every", 9)
    assert "no room" in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--checkpoint-every", 1), "were not saved, and the newest checkpoint is {}/step_00000001"),
        ((), "the weights of step 2 were not saved"),
    ],
)
def test_a_last_save_that_fails_names_the_one_before(refused, tmp_path, monkeypatch, more, says):
    write = saver.save_checkpoint

    def fails(path, *args, **parts):
        if path.name.endswith("2"):
            raise OutputError("no room")
        write(path, *args, **parts)

    monkeypatch.setattr(saver, "save_checkpoint", fails)
    said = refused("--out", tmp_path / "run", "--steps", 2, *more)
    assert said.startswith("myna train: no room; the weights of step 2 were not saved")
    assert says.format(tmp_path / "run" / "checkpoints") in said


def test_a_last_save_that_cannot_be_read_back_is_not_called_safe(refused, tmp_path, monkeypatch):
    def fails(path):
        raise UnreadableError(f"{path} cannot be read")

    monkeypatch.setattr(saver, "verify", fails)
    said = refused("--out", tmp_path / "run", "--steps", 2, "--checkpoint-every", 1, "--keep-last", 1)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert said.startswith(
        f"myna train: {checkpoints}/step_00000002 cannot be read; the weights of step 2 were"
    )
    assert said.endswith(f"and the newest checkpoint is {checkpoints}/step_00000001\n")


def test_before_the_last_step_nothing_is_added(refused, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OutputError("no room")

    monkeypatch.setattr(saver, "save_checkpoint", fails)
    said = refused("--out", tmp_path / "run", "--steps", 50, "--checkpoint-every", 1)
    assert said == "myna train: no room\n"


def test_beside_another_error_a_copy_is_only_said(small_run, tmp_path, monkeypatch, capsys):
    """The error that came first goes out, with its exit code."""

    def fails(self, path):
        raise ConnectionResetError("the store went away")

    def drawn(*_):
        raise OutputError("no report")

    monkeypatch.setattr(copies, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(copies.Copier, "_put", fails)
    monkeypatch.setattr(train_end, "report", drawn)
    call = ["--out", str(tmp_path / "run"), "--steps", "1", "--copy-to", f"file://{tmp_path}/copies"]
    assert main(["train", *small_run, *call]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("myna train: no report; the weights are safe in ")
    assert "and the last checkpoint was not copied: cannot copy step_00000001" in said.out
