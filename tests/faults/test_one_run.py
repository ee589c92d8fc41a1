"""One run a folder, and a folder that can be written."""

import os
import signal
import subprocess
import sys
import time

import pytest

from myna.cli import main
from myna.errors import OutputError
from myna.run import Run


def start(args, out):
    command = [sys.executable, "-m", "myna", "train", *args, "--steps", "5000", "--checkpoint-every", "20"]
    return subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(small_run, tmp_path, capsys):
    out = tmp_path / "run"
    first = start(small_run, out)
    while not (out / "checkpoints" / "step_00000020").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    assert main(["train", *small_run, "--steps", "5000", "--out", str(out)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert f"is being trained in by process {first.pid} on " in complaint
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with Run(out).locked():  # the system let go of it
        pass


def test_the_lock_is_the_processes_own(tmp_path):
    with (
        Run(tmp_path).locked(),
        pytest.raises(OutputError, match=f"process {os.getpid()} on"),
        Run(tmp_path).locked(),
    ):
        pass
    with Run(tmp_path).locked():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_step_1(small_run, tmp_path):
    tmp_path.chmod(0o500)
    run = start(small_run, tmp_path / "run")
    _, complaint = run.communicate(timeout=60)
    tmp_path.chmod(0o700)
    assert run.returncode == 2
    assert "cannot write" in complaint


def test_a_file_where_the_folder_should_be_is_refused_before_step_1(small_run, tmp_path, capsys):
    (tmp_path / "run").write_text("not a folder")
    assert main(["train", *small_run, "--steps", "5", "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "cannot write" in captured.err
    assert "step 1/" not in captured.out
