"""A disk that fills up while a run saves: a small file system in memory, where mounting is allowed."""

import subprocess
from pathlib import Path

import pytest

from myna.cli import main
from myna.files import sha256_file
from myna.locks import locked
from myna.model.checkpoint import checkpoint_step, list_checkpoints, verify


@pytest.fixture
def small_disk(tmp_path):
    """A mounted tmpfs of 1.6 MB: three checkpoints of the test's run fit."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def train(args, out):
    """Its exit code."""
    return main(["train", *args, "--steps", "60", "--checkpoint-every", "10", "--out", str(out)])


def test_a_full_disk_ends_the_run_with_one_line_and_room_lets_it_go_on(
    small_run, small_disk, tmp_path, capsys
):
    assert train(small_run, tmp_path / "whole") == 0
    assert train(small_run, small_disk / "run") == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "No space left on device" in complaint
    found = list_checkpoints(small_disk / "run" / "checkpoints")
    assert 1 <= len(found) < 6
    for path in found:
        verify(path)
    # Nothing half-written takes the room: the folder holds whole checkpoints and the run's own records.
    assert not list(Path(small_disk / "run" / "checkpoints").glob(".*"))
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert train(small_run, small_disk / "run") == 0
    assert f"resuming after step {checkpoint_step(found[0])} " in capsys.readouterr().out
    last = "checkpoints/step_00000060"
    for name in ("model.safetensors", "train_state.safetensors"):
        assert sha256_file(small_disk / "run" / last / name) == sha256_file(tmp_path / "whole" / last / name)


def test_a_full_disk_does_not_keep_a_lock_from_being_taken():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with locked(full, busy="busy") as descriptor:
        assert descriptor > 0
