"""`myna sweep`: ordinary runs, made once, in parts or whole; what can't be is refused before the first."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from myna.cli import main
from myna.commands import sweep as command
from myna.errors import Stopped
from myna.recipes import named
from myna.sweep import LECTURE
from myna.train.recipe import Recipe

FIELDS = """
    n-layer=1 n-head=2 n-embd=16 block-size=16 sequence-length=16 batch-tokens=64 warmup-steps=0 compile=false
    average-decay=0 steps=3 eval-every=3 sample-every=0 checkpoint-every=1
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Runs in this process, which is faster; the calls that were made."""
    made: list[list[str]] = []

    def run(call: Sequence[str], threads: int) -> "subprocess.CompletedProcess[str]":
        made.append(list(call))
        printed = capsys.readouterr()
        code = main(list(call[3:]))
        said = capsys.readouterr().err
        print(printed.out, end="")
        print(printed.err, end="", file=sys.stderr)
        return subprocess.CompletedProcess(call, code, "", said)

    monkeypatch.setattr(command, "_run", run)
    return made


@pytest.fixture
def sweep(small_dataset: Path) -> Callable[..., int]:
    def run(out: Path, *more: str) -> int:
        fixed = ["--data", str(small_dataset), "--device", "cpu", "--precision", "fp32", "--threads", "1"]
        return main(["sweep", "shakespeare-char", *FIELDS.split(), *more, *fixed, "--out", str(out)])

    return run


def weights(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.glob("*/checkpoints/step_00000003/model.safetensors")
    }


def test_two_parts_are_the_whole_bit_for_bit(calls, sweep, tmp_path, capsys):
    vary = ["learning-rate=1e-3,2e-3", "--seeds", "2"]
    assert sweep(tmp_path / "whole", *vary) == 0
    table = capsys.readouterr().out
    assert "| learning_rate=1e-3 | " in table
    assert (tmp_path / "whole" / "sweep.md").read_text() in table
    assert {path.suffix for path in (tmp_path / "whole").glob("sweep.*")} == {".json", ".md", ".png", ".html"}
    assert len(calls) == 1 + 4  # one of a single step, for the micro-batch
    assert [call[call.index("--seed") + 1] for call in calls[1:]] == ["1337", "1337", "1338", "1338"]

    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "sweep.json").write_bytes((tmp_path / "whole" / "sweep.json").read_bytes())
    for part in ("2/2", "1/2"):
        assert sweep(parts, *vary, "--part", part) == 0
    assert "0 of 4 runs are not" in capsys.readouterr().out
    assert len(calls) == 5 + 4
    assert sweep(parts, *vary) == 0
    assert len(calls) == 9  # nothing was left to make
    assert len(weights(parts)) == 4
    assert weights(parts) == weights(tmp_path / "whole")


def test_a_run_that_diverges_is_a_result_and_one_that_fails_is_named(calls, sweep, tmp_path, capsys):
    vary = ["clip-norm=0", "optimizer=sgd", "learning-rate=1e-3,1e30", "optimizer.momentum=0"]
    assert sweep(tmp_path / "s", *vary, "--micro-batch", "4") == 0
    said = capsys.readouterr().out
    assert "diverged at step 2 (seed 1337)" in said
    assert sweep(tmp_path / "s", *vary, "--micro-batch", "4") == 0
    assert len(calls) == 2  # it is not tried again

    broken = tmp_path / "s" / "learning_rate=1e-3-seed1337"
    (broken / "outcome.json").unlink()
    (broken / "recipe.json").write_text("{")
    assert sweep(tmp_path / "s", *vary, "--micro-batch", "4") == 0
    said = capsys.readouterr().out
    assert "| learning_rate=1e-3 |  |" in said
    assert "failed: " in said


def test_a_stopped_run_stops_the_sweep_and_the_next_call_goes_on(calls, sweep, tmp_path, capsys, monkeypatch):
    real = command._run

    def stopped_in_the_second(call, threads):
        if len(calls) == 1:
            calls.append(list(call))
            return subprocess.CompletedProcess(call, Stopped.exit_code, "", "stopped")
        return real(call, threads)

    monkeypatch.setattr(command, "_run", stopped_in_the_second)
    vary = ["learning-rate=1e-3,2e-3", "--micro-batch", "2"]
    assert sweep(tmp_path / "s", *vary) == 75
    assert "the same call goes on" in capsys.readouterr().err
    assert sweep(tmp_path / "s", *vary) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pydoc", "lerning-rate=1,2"], "there is no field 'lerning_rate'; did you mean learning_rate?"),
        (["pydoc", "out=a,b"], "there is no field 'out'"),
        (["pydoc", "tokenizer=gpt2,bytes"], "tokenizer can't vary in a sweep: losses of two tokenizers"),
        (["pydoc", "seed=1,2"], "seed can't vary in a sweep: give --seeds N"),
        (["pydoc", "steps=1,x"], "does not take steps=x"),
        (["pydoc", "steps=1,0"], "--steps is 0; give 1 or more"),
        (["pydoc", "network.norm=pre,post"], "does not take network.norm=pre"),
        (["pydoc", "steps=5"], "nothing varies"),
        (["nope", "steps=1,2"], "there is no recipe 'nope'"),
        (["lecture", "steps=1,2"], "varies by itself"),
        (["pydoc", "steps=1,2", "--part", "3/2"], "--part is '3/2'"),
        (["pydoc", "steps=1,2", "--part", "0/2"], "--part is '0/2'"),
        (["pydoc", "steps=1,2", "--seeds", "0"], "--seeds is 0"),
        (["pydoc", "steps=1,2", "--micro-batch", "0"], "--micro-batch is 0"),
        (["pydoc", "learning-rate=1e-3,1e-3"], "has a value twice"),
        (["pydoc", "sample-prompt=a b,a-b"], "the same folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(args, says, tmp_path, capsys):
    assert main(["sweep", *args, "--out", str(tmp_path / "new" / "s")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_sweep_or_of_a_run_is_refused(tmp_path, capsys):
    folder = tmp_path / "s"
    folder.mkdir()
    LECTURE.write(folder / "sweep.json")
    assert main(["sweep", "pydoc", "steps=1,2", "--out", str(folder)]) == 2
    assert "holds another sweep" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    assert main(["sweep", "pydoc", "steps=1,2", "--out", str(tmp_path / "run")]) == 2
    assert "is a run or a dataset" in capsys.readouterr().err


def test_the_lectures_questions_are_recipes_that_can_be():
    for trial in LECTURE.trials():
        recipe = command.recipe_of(LECTURE, trial)
        assert recipe.network == "variants"
        assert recipe.steps == 300
        assert trial.variation.asks.endswith(("?", "documentation"))
    by_name = {t.variation.name: command.recipe_of(LECTURE, t) for t in LECTURE.trials()}
    base = by_name["base"]  # GPT-2's way to train, whatever the demo's is
    assert (base.optimizer, base.learning_rate, base.warmup_steps, base.clip_norm) == ("adamw", 2e-3, 15, 1.0)
    assert (base.decay, base.constant_fraction, base.final_learning_rate_fraction) == ("cosine", 0.0, 0.1)
    # What the demo sets by itself is named, so its next tuning does not reach the questions.
    demo, plain = named("pydoc").to_dict(), Recipe().to_dict()
    not_asked = {"name", "corpus", "tokenizer", "compile", "sample_prompt", "sample_temperature"}
    options = {"network_options", "optimizer_options"}  # those of other parts than the base's
    assert {key for key in demo if demo[key] != plain[key]} - not_asked - options <= set(LECTURE.fixed)
    base = json.dumps(by_name.pop("base").to_dict())
    assert all(json.dumps(recipe.to_dict()) != base for recipe in by_name.values())
