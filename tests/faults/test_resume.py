"""Runs that are killed, as processes, and go on."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from myna.cli import main

STEPS = 240


def start(args, out, env, *more):
    arguments = [*args, "--out", str(out), "--steps", str(STEPS), "--checkpoint-every", "20", *more]
    command = [sys.executable, "-m", "myna", "train", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(args, out):
    """Runs to the end here, in this process; its exit code."""
    return main(["train", *args, "--out", str(out), "--steps", str(STEPS), "--checkpoint-every", "20"])


def wait_for(path, process):
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(small_run, hashes, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finish(small_run, out) == 0
    return hashes(out, STEPS)


def test_killed_and_resumed_is_bit_equal(small_run, tmp_path, child_environment, hashes, undisturbed, capsys):
    """Steps until a checkpoint, SIGKILL, and the same command again: the weights of one undisturbed run."""
    out = tmp_path / "killed"
    process = start(small_run, out, child_environment)
    wait_for(out / "checkpoints" / "step_00000020", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert finish(small_run, out) == 0
    assert "resuming after step" in capsys.readouterr().out
    assert hashes(out, STEPS) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conversations", "fill in the middle", "mixture"])
def test_killed_and_resumed_is_bit_equal_on_other_samples(
    small_run_with, conversations, mixture, tmp_path, child_environment, hashes, capsys, kind
):
    """The same, where a sample is of packed conversations, of documents with their middle at the end, or a mixture."""
    more = ["--fim-rate", "0.5"]
    if kind == "conversations":
        more = ["--data", str(conversations), "--tokenizer", "from-data", "--block-size", "160"]
        more += ["--sequence-length", "160", "--batch-tokens", "1280"]
    if kind == "mixture":
        more = mixture("small:0.7", "other:0.3")
    args = small_run_with(*more)
    assert finish(args, tmp_path / "undisturbed") == 0
    process = start(args, tmp_path / "killed", child_environment)
    wait_for(tmp_path / "killed" / "checkpoints" / "step_00000020", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert finish(args, tmp_path / "killed") == 0
    assert "resuming after step" in capsys.readouterr().out
    assert hashes(tmp_path / "killed", STEPS) == hashes(tmp_path / "undisturbed", STEPS)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_asked_to_stop_it_saves_and_exits_75(
    small_run, tmp_path, child_environment, hashes, undisturbed, number
):
    out = tmp_path / "stopped"
    process = start(small_run, out, child_environment)
    wait_for(out / "checkpoints" / "step_00000020", process)
    process.send_signal(number)
    _, complaint = process.communicate()
    assert process.returncode == 75, complaint
    assert "is saved; the same command goes on from there" in complaint
    assert "Traceback" not in complaint
    assert finish(small_run, out) == 0
    assert hashes(out, STEPS) == undisturbed


@pytest.mark.slow
def test_thirty_kills_at_random_moments_are_bit_equal(small_run, tmp_path, child_environment, hashes):
    """From before the first import to the middle of a save: each life lasts a random while, dropout on."""
    more = ("--keep-last", "2", "--steps", "600")
    assert main(["train", *small_run, "--out", str(tmp_path / "undisturbed"), "--steps", "600"]) == 0
    chance = random.Random(0)
    out, kills, resumed = tmp_path / "killed", 0, 0
    while kills < 30:
        process = start(small_run, out, child_environment, *more)
        # Some lives end while they start; the others a while after their first new record.
        seen = (out / "metrics.jsonl").stat().st_size if (out / "metrics.jsonl").exists() else 0
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0, 3))
        else:
            while process.poll() is None and not (
                (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size > seen
            ):
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.25))
        assert process.poll() is None, f"it ended before kill {kills + 1}: {process.communicate()}"
        process.kill()
        said, _ = process.communicate()
        kills += 1
        resumed += "resuming after step" in said
    process = start(small_run, out, child_environment, *more)
    said, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert resumed > 10
    assert hashes(out, 600) == hashes(tmp_path / "undisturbed", 600)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step_00000580", "step_00000600"]


@pytest.mark.slow
def test_twenty_stops_lose_no_finished_step(small_run, tmp_path, child_environment, hashes, undisturbed):
    """Checkpoints only by the stops themselves: were a step lost, it would be recorded twice."""
    out = tmp_path / "stopped"
    more = ("--checkpoint-every", "0")
    for stop in range(1, 21):
        process = start(small_run, out, child_environment, *more)
        while process.poll() is None and last_step(out) < stop * 11:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate()
        assert process.returncode == 75, complaint
        assert f"after step {last_step(out)}, which is saved" in complaint
    process = start(small_run, out, child_environment, *more)
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert hashes(out, STEPS) == undisturbed
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "train_loss" in r] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow(small_run, tmp_path, child_environment):
    """2,500 steps with a checkpoint every 50: what the process holds at step 500 and at step 2,400."""
    out = tmp_path / "long"
    process = start(
        small_run, out, child_environment, "--steps", "2500", "--checkpoint-every", "50", "--keep-last", "2"
    )
    held = {}
    for step in (500, 2400):
        while process.poll() is None and last_step(out) < step:
            time.sleep(0.02)
        folder = pathlib.Path(f"/proc/{process.pid}")
        resident = next(x for x in (folder / "status").read_text().splitlines() if x.startswith("VmRSS"))
        held[step] = int(resident.split()[1]) / 1024, len(list((folder / "fd").iterdir()))
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert held[2400][0] < held[500][0] + 15, held  # MiB
    assert held[2400][1] <= held[500][1] + 3, held  # a checkpoint's files may be open


def last_step(out):
    """The last whole record of the metrics."""
    if not (out / "metrics.jsonl").exists():
        return 0
    lines = (out / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0
