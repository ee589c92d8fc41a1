"""The end of `myna train`: a finished run says so, and lacks nothing."""

import shlex
import subprocess
import sys
from pathlib import Path

from myna.cli import main


def stamps(run):
    return {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file() and p.name != ".lock"}


def test_the_same_command_twice_says_finished_and_changes_nothing(train, tmp_path, capsys):
    run = train(tmp_path / "run", 2)
    before = stamps(run)
    capsys.readouterr()
    train(tmp_path / "run", 2)
    said = capsys.readouterr().out
    assert f"{run.path} is finished: 2 of 2 steps. Nothing is left to train." in said
    assert "resuming" not in said
    assert stamps(run) == before


def test_a_finished_run_that_lacks_its_report_gets_it(train, tmp_path, capsys):
    run = train(tmp_path / "run", 2)
    run.report_path.unlink()
    run.page_path.unlink()
    capsys.readouterr()
    train(tmp_path / "run", 2)
    assert run.report_path.read_bytes().startswith(b"\x89PNG")
    assert "<title>run</title>" in run.page_path.read_text("utf-8")
    said = capsys.readouterr().out
    assert "is finished" in said
    assert f"report      {run.report_path}" in said


def test_a_reader_that_goes_away_does_not_end_the_run(small_run, tmp_path, child_environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "myna", "train", *small_run, "--out", str(tmp_path / "run"), "--steps", "5"],
        stdout=subprocess.PIPE, env=child_environment,
    )  # fmt: skip
    process.stdout.close()
    assert process.wait() == 0
    assert (tmp_path / "run" / "checkpoints" / "step_00000005").is_dir()


def test_a_sample_takes_no_more_rounds_than_the_other_ranks_go(small_run, tmp_path, monkeypatch):
    """A long prompt, and a window that slides: each round is a collective, and one too many would wait for ever."""
    went = []

    def counted(batches, rounds, before_batch):
        found = list(batches)
        went.append((len(found), rounds))
        return found

    monkeypatch.setattr("myna.commands.train_evaluations.in_rounds", counted)
    for block_size in ("640", "32"):
        more = [
            "--block-size",
            block_size,
            "--sequence-length",
            "16",
            "--sample-every",
            "1",
            "--sample-temperature",
            "0",
        ]
        prompt = ["--sample-prompt", "x" * 600, "--steps", "1", "--out", str(tmp_path / block_size)]
        assert main(["train", *small_run, *more, *prompt]) == 0
    assert len(went) == 4  # at steps 0 and 1
    assert all(0 < steps <= rounds for steps, rounds in went), went


def test_it_ends_by_printing_where_each_thing_lies(train, small_dataset, tmp_path, capsys):
    run = train(tmp_path / "run", 2)
    listed = dict(words for line in capsys.readouterr().out.splitlines() if len(words := line.split()) == 2)
    assert listed["tokenizer"] == f"{small_dataset}/tokenizer.json"
    assert listed["data"] == str(small_dataset)
    assert listed["checkpoint"] == f"{run.checkpoints}/step_00000002"
    for place in ("tokenizer", "data", "checkpoint", "metrics", "report"):
        assert Path(listed[place]).exists(), place


def test_what_to_try_next_can_be_pasted_whatever_the_folder_is_called(train, tmp_path, capsys):
    run = train(tmp_path / "r 1", 2)
    tried = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("  myna ")]
    assert [words[1] for words in tried] == ["sample", "eval", "data"]
    assert [words[2] for words in tried[:2]] == [str(run.path)] * 2
