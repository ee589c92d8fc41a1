"""Several processes train what one would, copied or sharded, and go on with each other's checkpoints."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from myna.cli import main
from myna.run import Run

from . import twelve_steps


@pytest.fixture
def args(small_run):
    """Micro-batches that 1, 2 and 4 ranks divide; no dropout, which differs by rank; averaged weights."""
    more = "--dropout 0 --average-decay 0.9 --micro-batch 2 --checkpoint-every 10 --eval-every 10 --steps 20"
    return [*small_run, *more.split(), "--timeout-s", "60"]


@pytest.fixture
def trained(launch, args, tmp_path, capsys):
    """Trains to step 20 with so many ranks; a folder that holds step 10 is gone on with. Folder, and what was said."""

    def train(name, ranks, *more):
        if ranks == 1:  # here, in this process
            assert main(["train", *args, *more, "--out", str(tmp_path / name)]) == 0
            return Trained(tmp_path / name, capsys.readouterr().out)
        run = launch([*args, *more], tmp_path / name, ranks=ranks)
        assert run.wait(240) == 0, run.said()
        return Trained(run.out, run.said())

    return train


class Trained(NamedTuple):
    out: Path
    said: str


def losses(out, key="train_loss"):
    return [r[key] for r in Run(out).metrics() if key in r]


def half(source, target):
    """A run as it was at step 10."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "checkpoints" / "step_00000020")
    lines = (target / "metrics.jsonl").read_text().splitlines(keepends=True)
    (target / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 10))


def agree(run, reference):
    for key, count in (("train_loss", 20), ("val_loss", 3)):
        assert len(losses(run.out, key)) == count
        assert losses(run.out, key) == pytest.approx(losses(reference.out, key), abs=1e-5)


def test_two_ranks_see_the_batches_of_one_and_one_goes_on_with_theirs(trained, tmp_path):
    one, two = trained("one", 1), trained("two", 2)
    agree(two, one)
    half(two.out, tmp_path / "again")
    again = trained("again", 1)
    assert "resuming after step 10" in again.said
    assert "ranks: 2 before, 1 now; the batches are the same" in again.said
    agree(again, one)


@pytest.mark.slow
def test_four_ranks_and_from_two_to_four(trained, tmp_path):
    one, two, four = trained("one", 1), trained("two", 2), trained("four", 4)
    agree(four, one)
    half(two.out, tmp_path / "again")
    again = trained("again", 4)
    assert "ranks: 2 before, 4 now" in again.said
    agree(again, one)


FSDP = ("--shard", "fsdp", "--activation-checkpointing", "--sample-every", "20")


def test_sharded_goes_on_with_what_was_copied(trained, tmp_path):
    """From DDP's checkpoint to FSDP2 with recomputed activations; whole weights for validation and samples."""
    copied = trained("copied", 2)
    half(copied.out, tmp_path / "again")
    again = trained("again", 2, *FSDP)
    assert "resuming after step 10" in again.said
    agree(again, copied)
    assert [s["step"] for s in Run(again.out).samples()] == [20]


@pytest.mark.slow
def test_copied_goes_on_with_what_was_sharded(trained, tmp_path):
    copied, sharded = trained("copied", 2), trained("sharded", 2, *FSDP)
    agree(sharded, copied)
    half(sharded.out, tmp_path / "again")
    again = trained("again", 2)
    assert "resuming after step 10" in again.said
    agree(again, copied)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_the_main_rank_lays_a_run_over_minutes(launch, small_run, tmp_path, capsys, hashes, shard):
    """What is measured leaves no trace on any rank; one rank goes on with the steps that two have chosen."""
    more = "--average-decay 0.9 --micro-batch 2 --timeout-s 60 --eval-every 12 --sample-every 12 --checkpoint-every 4"
    args = [*small_run, *more.split(), "--shard", shard]
    timed = launch([*args, "--minutes", "0.05"], tmp_path / "timed", ranks=2, program=twelve_steps.__file__)
    assert timed.wait(240) == 0, timed.said()
    assert "--minutes 0.05: 12 steps, since one takes " in timed.said()
    assert "2 ranks of 1 thread)" in timed.said()
    counted = launch([*args, "--steps", "12"], tmp_path / "counted", ranks=2)
    assert counted.wait(240) == 0, counted.said()
    assert hashes(timed.out, 12) == hashes(counted.out, 12)
    assert losses(timed.out) == losses(counted.out)
    shutil.rmtree(timed.out / "checkpoints" / "step_00000012")
    assert main(["train", *args, "--minutes", "0.05", "--out", str(timed.out)]) == 0
    said = capsys.readouterr().out
    assert "resuming after step 8" in said
    assert "ranks: 2 before, 1 now" in said
    assert "measuring" not in said


@pytest.mark.slow
def test_a_batch_the_ranks_do_not_divide_is_refused(launch, small_run, tmp_path):
    run = launch([*small_run, "--steps", "1"], tmp_path / "run", ranks=3)
    assert run.wait() != 0
    assert "does not divide among 3 ranks" in run.said()
    assert not (tmp_path / "run").exists()
