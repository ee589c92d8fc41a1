import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from myna.bench import measure
from myna.cli import main
from myna.commands.bench import Bench, measured_recipe
from myna.recipes import named

SHAPE = "--recipe shakespeare-char --layers 1 --micro-batch 2 --sequence-length 16"
TINY = [*SHAPE.split(), "--steps", "1", "--device", "cpu"]


@pytest.fixture
def nothing_runs(monkeypatch):
    def measured(job, on_step=None):
        raise AssertionError("something was measured")

    monkeypatch.setattr(measure, "run_job", measured)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rungs", "fp32,bf61"], "there is no rung 'bf61'; did you mean bf16?"),
        (["--rungs", ","], "--rungs names none"),
        (["--rungs", "fp32", "--precision", "fp16"], "--precision is of the rung ours; leave it out, or add"),
        (["--rungs", "fp32", "--compile-by", "block"], "--compile-by is of the rung ours"),
        (["--recipe", "pydoc", "--compile-by", "block"], "--compile-by is block, and pydoc does not compile"),
        (["--attention", "--compile-by", "block"], "--compile-by is of the ladder"),
        (["--rungs", ""], "--rungs is empty"),
        (["--recipe", "gpt2-142m"], "did you mean gpt2-124m"),
        (["--steps", "0"], "--steps is 0; give 1 or more"),
        (["--layers", "0"], "--layers is 0"),
        (["--accumulate", "-1"], "--accumulate is -1"),
        (["--micro-batch", "0"], "--micro-batch is 0"),
        (["--sequence-length", "0"], "--sequence-length is 0"),
        (["--sequence-length", "1025"], "give at most 1024, the positions of gpt2-124m"),
        (["--rungs", "FP23"], "did you mean fp32? There are: fp32"),
        (["--accumulate", "9" * 15], "tokens are more than 67,108,864 a step; lower --accumulate"),
        (
            ["--micro-batch", "9" * 15],
            "tokens are more than 67,108,864 a step; lower --accumulate or --micro-b",
        ),
        (
            ["--recipe", "speedrun-124m", "--rungs", "fp32,ours"],
            "--rungs is fp32,ours: the lecture's rungs are GPT-2 with AdamW, and this is nanochat with muon; leave",
        ),
        (
            ["--optimizer", "muon", "--rungs", "fp32"],
            "and this is gpt2 with muon; leave --rungs out, or give ours",
        ),
        (["--network", "nanochta"], "there is no network 'nanochta'; did you mean nanochat?"),
        (["--optimizer", "muno"], "there is no optimizer 'muno'; did you mean muon?"),
        (
            ["--recipe", "chat-pydoc"],
            "chat-pydoc takes its vocabulary from the model that it starts from",
        ),
        (["--lengths", "256"], "--lengths is of --attention; give --attention too"),
        (["--attention", "--layers", "2"], "--layers is of the ladder; leave it out with --attention"),
        (["--attention", "--steps", "0"], "--steps is 0; give 1 or more"),
        (["--attention", "--lengths", "256,0"], "--lengths has '0'; give whole numbers from 1 to 65,536"),
        (["--attention", "--lengths", "256,many"], "--lengths has 'many'"),
        (["--attention", "--lengths", "9" * 5000], "--lengths has '99999999999999999999'"),
        (["--attention", "--recipe", "gpt2-142m"], "did you mean gpt2-124m"),
        (["--attention", "--out", "a-file"], "cannot write to the folder a-file"),
        (["--out", "."], "ladder.png is a folder, where a file is to be written; give another --out"),
        (["--out", "a-file"], "cannot write to the folder a-file"),
        (["--out", "a-file/bench"], "cannot write to the folder a-file/bench"),
    ],
)
def test_a_wrong_call_is_a_line_before_anything_is_measured(
    args, words, tmp_path, monkeypatch, capsys, nothing_runs
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    (tmp_path / "ladder.png").mkdir()
    assert main(["bench", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("myna bench: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file", "ladder.png"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--rungs", "fp32,ours"],
            "--rungs is fp32,ours: several ranks measure our step alone; leave --rungs",
        ),
        (["--attention"], "--attention is measured by one process; start it without torchrun"),
        (["--micro-batch", "0"], "--micro-batch is 0; give 1 or more"),
    ],
)
@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_a_wrong_call_under_torchrun_is_a_line_of_the_first_rank(
    args, words, local_rank, tmp_path, monkeypatch, capsys, nothing_runs
):
    monkeypatch.chdir(tmp_path)
    place = {"RANK": local_rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    for name, value in (place | {"MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}).items():
        monkeypatch.setenv(name, value)
    assert main(["bench", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == (1 if local_rank == "0" else 0)
    assert local_rank == "1" or words in err
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_is_refused_at_once(tmp_path, monkeypatch, capsys, nothing_runs):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *TINY, "--rungs", "fp32", "--layers", str(10**11)]) == 2
    assert "n_layer is 100000000000; give 1 to 1,000" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_ladder_is_measured_and_written(tmp_path, capsys):
    out = tmp_path / "ladder"
    assert main(["bench", *TINY, "--rungs", "fp32,tf32", "--out", str(out)]) == 0
    shown, progress = capsys.readouterr()
    assert "skipped: TF32: a mode of CUDA GPUs, and the device is cpu" in shown
    assert progress.splitlines()[-1].startswith("TF32: skipped")
    assert (out / "ladder.png").read_bytes().startswith(b"\x89PNG")
    ladder = json.loads((out / "ladder.json").read_text())
    recipe = named("shakespeare-char")
    assert ladder["model"] == {
        "recipe": "shakespeare-char",
        "network": "gpt2",
        "optimizer": "adamw",
        "n_layer": 1,
        "n_head": recipe.n_head,
        "n_embd": recipe.n_embd,
        "block_size": recipe.block_size,
        "vocab_size": 257,
    }
    assert (ladder["tokens_per_step"], ladder["timed_steps"], ladder["why_only_ours"]) == (32, 1, None)
    first, second = ladder["rungs"]
    assert first.keys() == {
        "name", "title", "change", "without", "ms_per_step", "step_seconds", "tokens_per_second", "flops",
        "share_of_limit", "ratio", "peak_memory_bytes", "first_step_seconds", "first_loss", "last_loss", "compiled",
        "compiler_failure", "skipped_updates",
    }  # fmt: skip
    assert first["ratio"] == 1.0
    assert second.keys() == {"name", "title", "change", "skipped"}


@pytest.mark.parametrize(
    ("recipe", "optimizer", "rate"),
    [
        ("pydoc", "adamw", 6e-3),
        ("gpt2-124m", "muon", 1e-3),
        ("pydoc", "muon", 0.028),
        ("gpt2-124m", "adam", 6e-4),
    ],
)
def test_another_optimizer_gets_a_rate_that_is_usual_for_it(recipe, optimizer, rate):
    assert measured_recipe(Bench(recipe=recipe, optimizer=optimizer)).learning_rate == rate


@pytest.mark.slow
def test_json_goes_to_stdout_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["--recipe", "pydoc", *TINY[2:], "--rungs", "ours", "--json"]  # a recipe that does not compile
    assert main(["bench", *args]) == 0
    ladder = json.loads(capsys.readouterr().out)
    assert [(record["name"], record["compiled"]) for record in ladder["rungs"]] == [("ours", False)]
    assert ladder["model"]["vocab_size"] == 4096
    assert json.loads((tmp_path / "bench" / "ladder.json").read_text()) == ladder


@pytest.mark.slow
def test_another_network_and_optimizer_have_our_rung_alone(tmp_path, capsys):
    args = [*TINY, "--network", "nanochat", "--optimizer", "muon", "--out", str(tmp_path)]
    assert main(["bench", *args]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("shakespeare-char (nanochat with muon), 1 layer, 2 x 16 tokens a step")
    assert "only ours: the lecture's rungs are GPT-2 with AdamW, and this is nanochat with muon" in shown
    assert "ours: of each step, optimizer" in shown
    (record,) = json.loads((tmp_path / "ladder.json").read_text())["rungs"]
    assert record["name"] == "ours"
    assert record["parts"].keys() == {"optimizer", "orthogonalisation"}
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_compiled_ladder_from_end_to_end(tmp_path, capsys):
    tiny = ["--recipe", "shakespeare", *TINY[2:]]  # one that compiles
    args = [*tiny, "--rungs", "fp32,compile,fused-adamw,ours", "--out", str(tmp_path), "--json"]
    assert main(["bench", *args]) == 0
    rungs = json.loads(capsys.readouterr().out)["rungs"]
    assert [record["compiled"] for record in rungs] == [False, True, True, True]
    assert max(r["last_loss"] for r in rungs) - min(r["last_loss"] for r in rungs) < 0.02


@pytest.mark.slow
def test_a_machine_without_a_compiler_measures_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    args = [*TINY, "--rungs", "fp32,compile,flash-attention,ours", "--out", str(tmp_path), "--json"]
    assert main(["bench", *args]) == 0
    fp32, compiled, flash, ours = json.loads(capsys.readouterr().out)["rungs"]
    assert compiled["skipped"].startswith("torch.compile failed: ")
    assert {"tf32", "compile"} <= set(flash["without"])  # and fp16 and bf16, on a processor without them
    assert not ours["compiled"]
    assert fp32["ratio"] == 1.0


KILLED_OTHERWISE = [pytest.param(by, marks=pytest.mark.slow) for by in (signal.SIGINT, signal.SIGKILL)]


@pytest.mark.parametrize("by", [signal.SIGTERM, *KILLED_OTHERWISE])
def test_a_signal_takes_the_workers_along(tmp_path, child_environment, by):
    args = [*TINY, "--rungs", "fp32", "--steps", "1000000", "--out", "new/out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "myna", "bench", *args],
        cwd=tmp_path,
        env=child_environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = found_worker(process.pid, "rung")
    process.send_signal(by)
    _, err = process.communicate(timeout=60)
    if by != signal.SIGKILL:
        assert (process.returncode, err) == (128 + by, f"myna bench: stopped by {by.name}\n")
        assert list(tmp_path.iterdir()) == []
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < until:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def found_worker(parent: int, task: str) -> int:
    """The parent's child that does a task, once it is there."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            children = file.read().split()
        for child in children:
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{child}/cmdline") as cmdline,
            ):  # it may be gone by now
                if f'"task": "{task}"' in cmdline.read():
                    return int(child)
        time.sleep(0.1)
    raise AssertionError("no worker was started")
