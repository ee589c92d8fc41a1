"""A checkpoint that can't be read is not a damaged one: nothing is renamed, and the file is named."""

import builtins
import codecs
import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from myna.cli import main
from myna.commands import eval as eval_command
from myna.commands import sample as sample_command
from myna.errors import UnreadableError
from myna.model import checkpoint
from myna.model.checkpoint import is_sound
from myna.train.keep import saver as saving
from myna.train.keep.saver import Retention, Saver

NOBODY = 65534
COMMANDS = [eval_command, sample_command]  # imported by the one who may read them
codecs.lookup("ascii")  # likewise: Python imports a codec when it is first used
NEWEST = "checkpoints/step_00000004"


@contextlib.contextmanager
def as_another_user():
    """Root may read everything; within the block the process is not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def trained(small_run, tmp_path_factory):
    """A finished run of four steps with two checkpoints, on data that another user may read."""
    for folder in Path(small_run[small_run.index("--data") + 1]).parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *small_run, "--steps", "4", "--checkpoint-every", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained):
    """A copy of it where another user may come, and which is that user's."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(shutil.copytree(trained, Path(place) / "run"))
        if os.geteuid() == 0:
            for path in (Path(place), out, *out.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield out
        for path in (out, *out.rglob("*")):  # so that it can be removed by anyone
            if not path.is_symlink():
                path.chmod(0o755)


@pytest.fixture
def same(run):
    """Whether the names in the run are still those of the beginning."""
    before = names(run)
    return lambda: names(run) == before


def names(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.name != ".lock")


STEPS = ("--steps", 4, "--checkpoint-every", 2)


@pytest.mark.parametrize(
    ("closed", "named"),
    [
        (f"{NEWEST}/model.safetensors", f"{NEWEST}/model.safetensors"),
        (f"{NEWEST}/train_state.json", f"{NEWEST}/train_state.json"),
        (f"{NEWEST}/manifest.json", f"{NEWEST}/manifest.json"),
        (NEWEST, f"{NEWEST}/manifest.json"),
        ("checkpoints", "checkpoints"),
    ],
)
def test_without_permission_nothing_is_renamed_and_the_file_is_named(
    run, same, refused, capsys, closed, named
):
    mode = (run / closed).stat().st_mode
    (run / closed).chmod(0)
    with as_another_user():
        said = refused("--out", run, *STEPS)
    assert said.startswith(f"myna train: {run / named} cannot be read: Permission denied. This is no sign of")
    assert "then give the same command again" in said
    (run / closed).chmod(mode)
    assert same()
    capsys.readouterr()
    refused("--out", run, *STEPS, "--resume", "never")  # nothing but what was asked is refused now
    assert main(["sample", str(run), "--prompt", "1", "--max-tokens", "1"]) == 0


@pytest.mark.parametrize("command", ["sample", "eval"])
@pytest.mark.parametrize("closed", [f"{NEWEST}/model.safetensors", NEWEST, "checkpoints"])
def test_other_commands_do_not_take_an_older_one_instead(run, capsys, command, closed):
    more = ["--prompt", "1"] if command == "sample" else ["--task", "val", "--data", str(run)]
    mode = (run / closed).stat().st_mode
    (run / closed).chmod(0)
    with as_another_user():
        assert main([command, str(run), *more]) == 2
    (run / closed).chmod(mode)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{run / closed}" in said
    assert "cannot be read: Permission denied" in said


def failing_at(monkeypatch, file, number, how):
    """Has the system fail at one file, when it is opened or when it is read."""
    if how == "open":
        opened = builtins.open

        def open_(path, *args, **options):
            if str(path) == str(file):
                raise OSError(number, os.strerror(number), str(path))
            return opened(path, *args, **options)

        monkeypatch.setattr(builtins, "open", open_)
        return
    hashed = checkpoint.sha256_file

    def read(path):
        if Path(path) == file:
            raise OSError(number, os.strerror(number))  # a read names no file
        return hashed(path)

    monkeypatch.setattr(checkpoint, "sha256_file", read)


@pytest.mark.parametrize(
    ("number", "how"),
    [(errno.EIO, "read"), (errno.ESTALE, "read"), (errno.EIO, "open"), (errno.EMFILE, "open")],
)
def test_whatever_else_the_system_says_takes_the_same_way(run, same, refused, monkeypatch, number, how):
    file = run / NEWEST / "train_state.safetensors"
    failing_at(monkeypatch, file, number, how)
    said = refused("--out", run, *STEPS)
    assert f"{file} cannot be read: {os.strerror(number)}. " in said
    assert same()


def test_an_error_while_listing_takes_it_too(run, same, refused, monkeypatch):
    listed = os.listdir

    def listdir(path="."):
        if str(path) == str(run / "checkpoints"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert f"{run / 'checkpoints'} cannot be read: Input/output error. " in refused("--out", run, *STEPS)
    assert same()


@pytest.mark.parametrize("link", ["checkpoints", NEWEST, f"{NEWEST}/model.safetensors"])
def test_a_link_that_leads_nowhere_is_no_damage(run, same, refused, tmp_path, link):
    (run / link).rename(tmp_path / "elsewhere")
    (run / link).symlink_to(tmp_path / "elsewhere")
    kept = (tmp_path / "elsewhere").rename(tmp_path / "not mounted")
    assert f"{run / link} is a link to {tmp_path / 'elsewhere'}, which is not there" in refused(
        "--out", run, *STEPS
    )
    assert os.path.islink(run / link)
    kept.rename(tmp_path / "elsewhere")
    assert is_sound(run / NEWEST)
    (run / link).unlink()
    (tmp_path / "elsewhere").rename(run / link)
    assert same()


def test_a_checkpoint_of_the_same_step_is_not_set_aside(save_tiny, tmp_path, monkeypatch):
    path = tmp_path / "step_00000005"
    save_tiny(path)
    failing_at(monkeypatch, path / "model.safetensors", errno.EIO, "read")
    with pytest.raises(UnreadableError, match=r"model\.safetensors cannot be read: Input/output error"):
        save_tiny(path, seed=1)
    monkeypatch.undo()
    assert is_sound(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_retention_removes_nothing_when_the_new_one_cannot_be_read_back(save_tiny, tmp_path, monkeypatch):
    for step in (1, 2):
        network = save_tiny(tmp_path / f"step_0000000{step}")
    saver = Saver(tmp_path, network, {}, None, Retention(keep_last=1), say=print)
    failing_at(monkeypatch, tmp_path / "step_00000002" / "model.safetensors", errno.EIO, "read")
    with pytest.raises(UnreadableError, match="step_00000002"):
        saver.prune(tmp_path / "step_00000002")
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    saver.prune(tmp_path / "step_00000002")
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000002"]
    assert saving.list_checkpoints(tmp_path)


def test_a_damaged_one_that_cannot_be_renamed_is_a_line(run, refused):
    """The folder is not the user's: what is damaged stays, and the run stops."""
    with open(run / NEWEST / "model.safetensors", "ab") as file:
        file.write(b"more")
    (run / "checkpoints").chmod(0o555)
    with as_another_user():
        said = refused("--out", run, *STEPS)
    (run / "checkpoints").chmod(0o755)
    assert f"{run / NEWEST} is damaged and cannot be renamed: Permission denied" in said
    assert (run / NEWEST).is_dir()


def test_checkpoints_that_cannot_be_written_are_told_before_the_data_is_read(run, same, refused):
    (run / "checkpoints").chmod(0o555)
    with as_another_user():
        said = refused("--out", run, "--steps", 9, "--extend", "--data", "absent")
    (run / "checkpoints").chmod(0o755)
    assert f"cannot write to the folder {run / 'checkpoints'}: Permission denied" in said
    assert same()
