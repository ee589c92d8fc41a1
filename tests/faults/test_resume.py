"""Runs that are killed, as processes, and go on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from myna.files import sha256_file

STEPS = 400


def start(args, out, env):
    command = [
        sys.executable,
        "-m",
        "myna",
        "train",
        *args,
        "--out",
        str(out),
        "--steps",
        str(STEPS),
        "--checkpoint-every",
        "20",
    ]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def hashes(out):
    newest = out / "checkpoints" / f"step_{STEPS:08d}"
    return sha256_file(newest / "model.safetensors"), sha256_file(newest / "train_state.safetensors")


@pytest.fixture(scope="module")
def undisturbed(small_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(small_run, out, dict(os.environ))
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    return hashes(out)


def test_killed_and_resumed_is_bit_equal(small_run, tmp_path, child_environment, undisturbed):
    """Steps until a checkpoint, SIGKILL, and the same command again: the weights of one undisturbed run."""
    out = tmp_path / "killed"
    for step in (20, 120):
        process = start(small_run, out, child_environment)
        wait_for(out / "checkpoints" / f"step_{step:08d}", process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(small_run, out, child_environment)
    said, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert "resuming after step" in said
    assert hashes(out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_exits_75(small_run, tmp_path, child_environment, undisturbed, number):
    out = tmp_path / "stopped"
    process = start(small_run, out, child_environment)
    wait_for(out / "checkpoints" / "step_00000020", process)
    process.send_signal(number)
    _, complaint = process.communicate()
    assert process.returncode == 75, complaint
    assert "is saved; the same command goes on from there" in complaint
    assert "Traceback" not in complaint
    process = start(small_run, out, child_environment)
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert hashes(out) == undisturbed
