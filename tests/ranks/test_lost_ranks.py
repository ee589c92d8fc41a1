"""Ranks that die, hang or are told to stop: the others know within seconds, and nothing is lost."""

import os
import signal
import sys
import time

import pytest

from myna.model.checkpoint import list_checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")


@pytest.fixture
def args(small_run):
    """Long enough that a signal meets it."""
    return [*small_run, "--steps", "3000", "--checkpoint-every", "20", "--keep-last", "3", "--timeout-s", "4"]


def kill_one(launch, args, out, rank):
    run = launch(args, out, ranks=2)
    run.wait_for_step(20)
    victims = run.ranks()
    os.kill(victims.pop(rank), signal.SIGKILL)
    killed = time.monotonic()
    while any(pid in victims.values() for pid in run.ranks().values()):
        assert time.monotonic() - killed < 10, run.said()
        time.sleep(0.05)
    run.wait()
    return run


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_dead_rank_ends_the_other_within_ten_seconds_and_is_named(launch, args, tmp_path, rank):
    run = kill_one(launch, args, tmp_path / "run", rank)
    assert f"myna train: rank {rank} of 2 died; the last checkpoint is kept" in run.said()
    assert "/src/myna/" not in run.said()  # a traceback of ours; torchrun prints its own


@pytest.mark.slow
def test_ten_of_ten_dead_ranks(launch, args, tmp_path):
    for number in range(10):
        run = kill_one(launch, args, tmp_path / f"run{number}", number % 2)
        assert f"rank {number % 2} of 2 died" in run.said()


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_hung_rank_is_named_within_the_timeout_and_five_seconds(launch, args, tmp_path, rank):
    run = launch(args, tmp_path / "run", ranks=2)
    run.wait_for_step(20)
    os.kill(run.ranks()[rank], signal.SIGSTOP)
    stopped = time.monotonic()
    while f"rank {rank} of 2" not in run.said():
        assert time.monotonic() - stopped < 4 + 5, run.said()
        time.sleep(0.05)
    said = run.said()
    assert "has not answered for 4 s: it hangs" in said or "has fallen silent" in said
    assert f"rank {1 - rank} of 2 " not in said


@pytest.mark.slow
def test_torchrun_restarts_from_the_newest_sound_checkpoint_by_itself(launch, small_run, hashes, tmp_path):
    """A rank killed twice, two restarts: the weights of an undisturbed run."""
    steps = 300
    args = [*small_run, "--steps", str(steps), "--checkpoint-every", "20", "--timeout-s", "20"]
    whole = launch(args, tmp_path / "whole", ranks=2)
    assert whole.wait() == 0, whole.said()
    run = launch(args, tmp_path / "run", ranks=2, restarts=2)
    for step, rank in ((20, 1), (100, 0)):
        run.wait_for_step(step)
        os.kill(run.ranks()[rank], signal.SIGKILL)
    assert run.wait() == 0, run.said()
    assert run.said().count("resuming after step") == 2
    assert hashes(tmp_path / "run", steps) == hashes(tmp_path / "whole", steps)


@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGTERM, "one"),
        pytest.param(signal.SIGTERM, "torchrun", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "one", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "torchrun", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "all", marks=pytest.mark.slow),
    ],
)
def test_asked_to_stop_every_rank_saves_the_same_step_and_ends_with_75(launch, args, tmp_path, number, whom):
    """`all` is what a terminal's Ctrl-C does: torchrun and every rank, and torchrun passes it on once more."""
    run = launch(args, tmp_path / "run", ranks=2)
    run.wait_for_step(20)
    ranks = run.ranks()
    if whom == "one":
        os.kill(ranks[1], number)
    else:
        if whom == "all":
            for pid in ranks.values():
                os.kill(pid, number)
        os.kill(run.process.pid, number)
    assert run.wait() != 0
    said = run.said()
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    stops = [line for line in said.splitlines() if "which is saved" in line]
    assert len(stops) == 2, said
    assert all(f"after step {int(newest.name[5:])}, which is saved" in line for line in stops)
    if whom == "one":
        assert "exitcode  : 75" in said
        assert "exitcode  : -15" not in said
