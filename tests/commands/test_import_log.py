"""`myna import LOG`: another program's log becomes a folder that `myna report` draws, and that no command takes for a
model."""

import json

import pytest

from myna.cli import main
from myna.reference_curves import LLMC_LOSSES, llmc_steps
from myna.run import Run

LINES = "0 val 10.9511\n0 hella 0.2463\n0 train 10.955029\n1 train 10.854980\n2 train 10.7\n3 val 10.6\n"


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log.txt").write_text(LINES)
    return tmp_path / "log.txt"


@pytest.fixture
def folder(log, tmp_path, capsys):
    assert main(["import", str(log), "--out", str(tmp_path / "lecture")]) == 0
    return tmp_path / "lecture"


def said(capsys, *args):
    capsys.readouterr()
    assert main([*map(str, args)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_log_becomes_a_run_that_says_what_it_is(log, folder, capsys):
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "metrics.jsonl"}
    shown = capsys.readouterr().out
    assert "until step 3. It is a log, and no model." in shown
    assert "tokens: 524,288 a step, GPT-2's batch, which is assumed" in shown
    about = json.loads((folder / "recipe.json").read_text())
    assert (about["name"], about["batch_tokens"]) == ("lecture", 524_288)
    assert (about["log"]["program"], about["log"]["lines"]) == ("build-nanogpt", 6)
    last = {"step": 3, "tokens": 3 * 524_288, "val_loss": 10.6}
    assert Run(folder).metrics()[-1] == last


def test_a_report_lays_it_over_a_run(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path / "mine")
    run.path.mkdir()
    run.write_recipe({"name": "mine"})
    run.append_metrics({"step": 1, "tokens": 524_288, "train_loss": 11.0})
    capsys.readouterr()
    assert main(["report", "lecture", "mine"]) == 0
    assert "lecture: after 1.6M tokens  ·  validation loss 10.6000" in capsys.readouterr().out
    assert (tmp_path / "report.png").exists()


def test_llmcs_own_log_is_on_track_once_it_is_said_what_it_is_of(tmp_path, capsys):
    lines = [f"s:{step} tel:{loss:.4f}\n" for step, loss in zip(llmc_steps(), LLMC_LOSSES, strict=True)]
    (tmp_path / "main.log").write_text("".join(lines))
    call = ["import", str(tmp_path / "main.log"), "--out", str(tmp_path / "llmc")]
    assert main([*call, "--size", "124M", "--corpus", "fineweb"]) == 0
    assert main(["report", str(tmp_path / "llmc")]) == 0
    shown = capsys.readouterr().out
    assert "compared as GPT-2 124M on fineweb, as you say" in shown
    assert "On track. The validation loss 3.2722 after 10.3B tokens is 0.0000 nats above llm.c's" in shown


@pytest.mark.parametrize(
    "command",
    [
        ["sample", "LOG", "--prompt", "x"],
        ["eval", "LOG", "--task", "val"],
        ["eval", "LOG", "--task", "val", "--data", "absent"],
        ["train", "--out", "LOG"],
        ["train", "--init", "LOG"],
    ],
)
def test_no_command_takes_it_for_a_model(folder, command, capsys):
    line = said(capsys, *(folder if word == "LOG" else word for word in command))
    assert f"{folder} is the log of a run of build-nanogpt, without its model: `myna report` draws it" in line
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "metrics.jsonl"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--batch-tokens", "0"], "--batch-tokens is 0; give 1 or more"),
        (["--tokenizer", "gpt2"], "--tokenizer is of a checkpoint"),
        (["--gelu", "exact"], "--gelu is of a checkpoint"),
        (["--batch-tokens", str(2**62)], "too far to be true"),
    ],
)
def test_flags_that_a_log_has_no_use_for_are_refused(log, tmp_path, more, says, capsys):
    assert says in said(capsys, "import", log, "--out", tmp_path / "new", *more)
    assert not (tmp_path / "new").exists()


def test_tokens_that_contradict_the_log_are_refused(tmp_path, capsys):
    path = tmp_path / "printed.txt"
    path.write_text("tokens per iteration will be: 491,520\nstep 0: train loss 4.2, val loss 4.3\n")
    line = said(capsys, "import", path, "--out", tmp_path / "new", "--batch-tokens", "524288")
    assert "--batch-tokens is 524,288, and the log states 491,520 tokens a step" in line
    assert main(["import", str(path), "--out", str(tmp_path / "new")]) == 0
    assert "tokens: 491,520 a step, as the log states" in capsys.readouterr().out
