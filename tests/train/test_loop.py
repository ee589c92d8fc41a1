import gc
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from myna.train.ranks import Ranks

from myna.commands import train as command
from myna.errors import DataError, DeviceError, DivergedError, ModelError, OutputError, Stopped, UsageError
from myna.files import sha256_file
from myna.model import gpt2
from myna.model.checkpoint import verify
from myna.run import Run
from myna.train import loop, spike, step


def train(args, out, steps, *more):
    command.main([*args, "--out", str(out), "--steps", str(steps), *map(str, more)])
    return Run(out)


def weights_hash(run, step):
    folder = run.checkpoints / f"step_{step:08d}"
    return sha256_file(folder / "model.safetensors"), sha256_file(folder / "train_state.safetensors")


def test_a_run_leaves_what_the_design_says(small_run, tmp_path):
    run = train(
        small_run, tmp_path / "run", 6, "--eval-every", 3, "--sample-every", 3, "--checkpoint-every", 4
    )
    assert {p.name for p in run.path.iterdir()} == {
        "recipe.json", "environment.json", "metrics.jsonl", "samples.jsonl", "checkpoints", "report.png", ".lock",
    }  # fmt: skip
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == ["step_00000004", "step_00000006"]
    assert run.recipe()["micro_batch"] == 4
    steps = [r for r in run.metrics() if "train_loss" in r]
    assert [r["step"] for r in steps] == [1, 2, 3, 4, 5, 6]
    assert [r["tokens"] for r in steps] == [256 * n for n in range(1, 7)]
    assert set(steps[0]) == {
        "step", "tokens", "train_loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "seconds",
        "input_wait_seconds",
    }  # fmt: skip
    evaluations = [r for r in run.metrics() if "val_loss" in r]
    assert [r["step"] for r in evaluations] == [0, 3, 6]
    assert all(a["val_loss"] > b["val_loss"] for a, b in pairwise(evaluations))
    assert [s["step"] for s in run.samples()] == [0, 3, 6]


def test_the_same_command_twice_says_finished_and_changes_nothing(small_run, tmp_path, capsys):
    run = train(small_run, tmp_path / "run", 2)
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file() and p.name != ".lock"}
    train(small_run, tmp_path / "run", 2)
    assert "finished: 2 of 2 steps" in capsys.readouterr().out
    assert {
        p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file() and p.name != ".lock"
    } == before


def test_stopping_and_going_on_is_bit_equal(small_run, tmp_path, monkeypatch):
    """A signal after every second step, against one undisturbed run: weights and moments."""
    whole = train(small_run, tmp_path / "whole", 7)
    original = loop.Training._step

    def interrupted(self, *args):
        if self.finished_steps % 2 == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(loop.Training, "_step", interrupted)
    for _ in range(3):
        with pytest.raises(Stopped, match="goes on from there"):
            train(small_run, tmp_path / "parts", 7)
    parts = train(small_run, tmp_path / "parts", 7)
    assert weights_hash(parts, 7) == weights_hash(whole, 7)
    losses = [[r["train_loss"] for r in run.metrics() if "train_loss" in r] for run in (whole, parts)]
    assert losses[0] == losses[1]


def test_evaluation_and_samples_do_not_change_training(small_run, tmp_path):
    plain = train(small_run, tmp_path / "plain", 4)
    watched = train(small_run, tmp_path / "watched", 4, "--eval-every", 1, "--sample-every", 1)
    assert weights_hash(plain, 4) == weights_hash(watched, 4)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    small_run, tmp_path, capsys, monkeypatch
):
    whole = train(small_run, tmp_path / "whole", 6)
    run = train(small_run, tmp_path / "run", 6, "--checkpoint-every", 2)
    newest = run.checkpoints / "step_00000006" / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    train(small_run, tmp_path / "run", 6, "--checkpoint-every", 2)
    said = capsys.readouterr().out
    assert "step_00000006.damaged" in said
    assert "resuming after step 4" in said
    assert weights_hash(run, 6) == weights_hash(whole, 6)


def test_a_resume_keeps_the_micro_batch_that_auto_chose(small_run, tmp_path):
    run = train(small_run, tmp_path / "run", 2, "--micro-batch", "auto", "--checkpoint-every", 1)
    assert run.recipe()["micro_batch"] == 8
    stored = json.loads(run.recipe_path.read_text())
    run.recipe_path.write_text(json.dumps(stored | {"micro_batch": 2}))
    (run.checkpoints / "step_00000002").rename(tmp_path / "away")
    train(small_run, tmp_path / "run", 2, "--micro-batch", "auto", "--checkpoint-every", 1)
    assert run.recipe()["micro_batch"] == 2


@pytest.mark.parametrize("nonsense", ["auto", 1.5, None, 0, -2, True])
def test_a_damaged_micro_batch_of_a_run_is_named(small_run, tmp_path, nonsense):
    run = train(small_run, tmp_path / "run", 1)
    stored = json.loads(run.recipe_path.read_text())
    run.recipe_path.write_text(json.dumps(stored | {"micro_batch": nonsense}))
    with pytest.raises(DataError, match=r"recipe.json: micro_batch is .*; restore the file"):
        train(small_run, tmp_path / "run", 2, "--micro-batch", "auto")


def test_on_a_gpu_a_micro_batch_is_tried_beside_gradients_and_moments():
    """Of a later step; or the first that needs them runs out of memory."""
    weight = torch.nn.Parameter(torch.zeros(37, 41))
    optimizer = torch.optim.AdamW([weight])
    seen = []

    def alive(shape):
        return sum(type(o) is torch.Tensor and o.shape == shape for o in gc.get_objects())

    def backward(batch, scale):
        seen.append((alive((37, 41)) - others, weight.grad is not None))
        weight.grad = torch.zeros_like(weight)

    others = alive((37, 41))
    training = SimpleNamespace(
        model=SimpleNamespace(parameters=lambda: iter([weight])),
        optimizer=optimizer,
        ranks=Ranks(0, 1, torch.device("cuda")),
        stepper=SimpleNamespace(backward=backward),
        first_batch=lambda n: None,
    )
    loop.Training.try_out(training, 4)
    assert [gradient for _, gradient in seen] == [False, True]
    assert seen[0][0] == 2  # the moments; the weight is of another type
    assert weight.grad is None
    assert alive((37, 41)) == others


def test_memory_that_runs_out_is_not_the_compilers_failure(small_run, tmp_path, monkeypatch):
    def hidden(ids):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(step.SummedLoss, "compile_step", lambda self: setattr(self, "hidden", hidden))
    args = [a for a in small_run if a != "--no-compile"]
    with pytest.raises(DeviceError, match=r"compiling: out of memory; lower --micro-batch \(it is 4"):
        train(args, tmp_path / "run", 2, "--compile")


def test_a_resume_may_need_a_scaler_that_the_run_had_not(small_run, tmp_path):
    """As where `auto` meant bf16 before, and the machine now has fp16 alone."""
    run = train(small_run, tmp_path / "run", 1)
    train(small_run, tmp_path / "run", 2, "--precision", "fp16", "--override")
    assert [r["step"] for r in run.metrics() if "train_loss" in r] == [1, 2]


def test_hellaswag_is_scored_on_the_way_with_a_compiled_step(small_run, tmp_path, shared_data):
    items = shared_data("hellaswag_val_first500.jsonl").read_text().splitlines()[:6]
    (tmp_path / "hs.jsonl").write_text("\n".join(items) + "\n")
    args = [a for a in small_run if a != "--no-compile"]
    more = [
        "--compile",
        "--hellaswag",
        tmp_path / "hs.jsonl",
        "--hellaswag-every",
        1,
        "--eval-every",
        1,
        "--sample-every",
        1,
    ]
    run = train(args, tmp_path / "run", 2, *more)
    scored = [r for r in run.metrics() if "hellaswag_acc" in r]
    assert [r["step"] for r in scored] == [0, 1, 2]
    assert {"hellaswag_acc", "hellaswag_acc_token", "hellaswag_acc_char"} <= set(scored[0])


def test_a_compiler_that_fails_is_named_and_training_goes_on(small_run, tmp_path, capsys, monkeypatch):
    def broken(function, **options):
        def call(*args):
            raise RuntimeError("no C++ compiler here\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    plain = train(small_run, tmp_path / "plain", 2)
    run = train([a for a in small_run if a != "--no-compile"], tmp_path / "run", 2, "--compile")
    assert "torch.compile failed, training without it: no C++ compiler here" in capsys.readouterr().out
    assert weights_hash(run, 2) == weights_hash(plain, 2)


def test_what_is_not_finite_stops_the_run_and_saves_nothing(small_run, tmp_path, monkeypatch):
    original = step.Stepper.backward

    def poisoned(self, batch, scale):
        return original(self, batch, scale * (float("nan") if loop_step[0] == 3 else 1.0))

    loop_step = [0]
    seed_step = step.Stepper.seed_step

    def noted(self, number):
        loop_step[0] = number
        seed_step(self, number)

    monkeypatch.setattr(step.Stepper, "backward", poisoned)
    monkeypatch.setattr(step.Stepper, "seed_step", noted)
    with pytest.raises(DivergedError, match="step 4"):
        train(small_run, tmp_path / "run", 6, "--checkpoint-every", 1)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())[-1] == "step_00000003"


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (["--learning-rate", "0.5"], UsageError, "--learning-rate was 0.001, now 0.5"),
        (["--resume", "never"], OutputError, "holds a run already"),
        (["--tokenizer", "gpt2"], UsageError, "--tokenizer was 'bytes', now 'gpt2'"),
        (["--n-layer", "3", "--override"], UsageError, "--n-layer was 2, now 3.*--n-layer cannot change"),
        (["--keep-every", "5"], UsageError, "give --keep-last too"),
        (["--timeout-s", "0"], UsageError, "--timeout-s is 0"),
        (["--keep-last", "-1"], UsageError, "--keep-last is -1"),
    ],
)
def test_a_resume_that_would_not_be_one_is_refused(small_run, tmp_path, more, error, says):
    train(small_run, tmp_path / "run", 1)
    with pytest.raises(error, match=says):
        train(small_run, tmp_path / "run", 1, *more)


def test_other_data_is_refused_on_resume(small_run, tmp_path, capsys):
    from myna import Tokenizer
    from myna.data.prepare import prepare

    train(small_run, tmp_path / "run", 2, "--checkpoint-every", 1)
    (tmp_path / "other.txt").write_text("another text\n" * 500)
    prepare([str(tmp_path / "other.txt")], tmp_path / "other", Tokenizer.bytes(), workers=1)
    (tmp_path / "run" / "checkpoints" / "step_00000002").rename(tmp_path / "away")
    with pytest.raises(UsageError, match=r"other data.*or go on with --override"):
        train(small_run, tmp_path / "run", 2, "--data", tmp_path / "other")
    run = train(small_run, tmp_path / "run", 2, "--data", tmp_path / "other", "--override")
    assert "going on with other data" in capsys.readouterr().out
    assert (run.checkpoints / "step_00000002").exists()


def test_a_changed_recipe_goes_on_with_override_and_is_recorded(small_run, tmp_path, capsys):
    train(small_run, tmp_path / "run", 2)
    run = train(small_run, tmp_path / "run", 4, "--override", "--batch-tokens", 512)
    said = capsys.readouterr().out
    assert "going on with a changed recipe: --steps was 2, now 4; --batch-tokens was 256, now 512" in said
    assert "resuming after step 2" in said
    assert run.recipe()["batch_tokens"] == 512
    assert [r["tokens"] for r in run.metrics() if "train_loss" in r] == [256, 512, 1024, 1536]


def test_retention_on_the_way(small_run, tmp_path):
    run = train(small_run, tmp_path / "run", 9, "--checkpoint-every", 1, "--keep-last", 2, "--keep-every", 4)
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == [f"step_{n:08d}" for n in (4, 8, 9)]


def test_what_a_killed_process_left_is_swept_away(small_run, tmp_path):
    left = tmp_path / "run" / "checkpoints" / ".step_00000003.99999.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    train(small_run, tmp_path / "run", 1)
    assert not left.exists()


def test_several_epochs_are_told_and_go_on(small_run, tmp_path, capsys):
    train(small_run, tmp_path / "run", 1, "--batch-tokens", 64 * 1024, "--micro-batch", 256)
    said = capsys.readouterr().out
    assert "1.23 epochs in 1 steps" in said
    assert "the data will be gone through 1.2 times, in another order each time" in said


def test_recomputing_activations_changes_no_bit(small_run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(gpt2, "checkpoint", lambda *a, **k: calls.append(1) or recompute(*a, **k))
    recompute = torch.utils.checkpoint.checkpoint
    plain = train(small_run, tmp_path / "plain", 3)
    assert not calls
    again = train(small_run, tmp_path / "again", 3, "--activation-checkpointing")
    assert len(calls) == 3 * 2 * 2  # steps, micro-batches, layers
    assert weights_hash(plain, 3) == weights_hash(again, 3)


def test_a_spike_stops_before_the_update_and_saves_nothing(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(spike, "WINDOW_STEPS", 4)
    original = step.Stepper.backward

    def jumpy(self, batch, scale):
        return original(self, batch, scale) * (2.0 if jumping[0] == 8 else 1.0)

    seed_step, jumping = step.Stepper.seed_step, [0]

    def noted(self, number):
        jumping[0] = number + 1
        seed_step(self, number)

    monkeypatch.setattr(step.Stepper, "backward", jumpy)
    monkeypatch.setattr(step.Stepper, "seed_step", noted)
    with pytest.raises(DivergedError, match=r"step 8: the loss .* spikes"):
        train(small_run, tmp_path / "run", 9, "--checkpoint-every", 1, "--on-spike", "stop")
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())[-1] == "step_00000007"
    run = train(small_run, tmp_path / "run", 9, "--checkpoint-every", 1)
    state = json.loads((run.checkpoints / "step_00000009" / "train_state.json").read_text())
    assert state["spikes"]["steps"] == 9


@pytest.mark.parametrize(
    ("micro_batch", "says"),
    [
        (4, r"step 2: out of memory; lower --micro-batch \(it is 4;"),
        (1, r"--shard fsdp, or a lower --sequence"),
    ],
)
def test_out_of_memory_names_the_flag_and_leaves_the_checkpoint(
    small_run, tmp_path, monkeypatch, micro_batch, says
):
    original = step.Stepper.step

    def hungry(self, number, *args, **options):
        if number == 1:
            torch.empty(1 << 60, dtype=torch.uint8)  # what the allocator itself says
        return original(self, number, *args, **options)

    monkeypatch.setattr(step.Stepper, "step", hungry)
    with pytest.raises(DeviceError, match=says):
        train(small_run, tmp_path / "run", 3, "--checkpoint-every", 1, "--micro-batch", micro_batch)
    verify(tmp_path / "run" / "checkpoints" / "step_00000001")


def test_the_collector_rests_during_steps_and_works_again_after(small_run, tmp_path, monkeypatch):
    enabled, original = [], step.Stepper.step
    monkeypatch.setattr(
        step.Stepper, "step", lambda *a, **k: enabled.append(gc.isenabled()) or original(*a, **k)
    )
    train(small_run, tmp_path / "run", 2)
    assert enabled == [False, False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (["--tokenizer", "gpt2"], DataError, "another tokenizer"),
        (["--micro-batch", "3"], UsageError, r"give --micro-batch 2, or --batch-tokens 192 or 288"),
        (["--block-size", "100000", "--sequence-length", "100000", "--batch-tokens", "100000"], DataError, "window"),
        (["--data", "absent"], DataError, "absent"),
        (["--shard", "fsdp", "--precision", "fp16"], UsageError, "cannot scale fp16"),
        (["--hellaswag", "absent.jsonl"], DataError, r"absent\.jsonl"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(small_run, tmp_path, more, error, says):
    with pytest.raises(error, match=says):
        train(small_run, tmp_path / "run", 1, *more)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_mixed_into_a_dataset(small_run, small_dataset):
    with pytest.raises(OutputError, match="is a dataset"):
        train(small_run, small_dataset, 1)


def test_a_model_too_large_for_memory_is_told_its_size(small_run, tmp_path):
    with pytest.raises(ModelError, match=r"parameters does not fit the memory of cpu: weights, gradients"):
        train(small_run, tmp_path / "run", 1, "--n-embd", 2**40)
    assert not (tmp_path / "run").exists()


def test_another_corpus_is_not_taken_for_the_one_that_is_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--eval-every", "0", "--sample-every", "0"]
    command.main(["pydoc", "--steps", "1", *small, "--out", "r1"])
    with pytest.raises(UsageError, match="was prepared from pydoc, and this run wants shakespeare"):
        command.main(["pydoc", "--corpus", "shakespeare", "--steps", "1", "--out", "r2"])
    assert not (tmp_path / "r2").exists()


def test_a_reader_that_goes_away_does_not_end_the_run(small_run, tmp_path, child_environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "myna", "train", *small_run, "--out", str(tmp_path / "run"), "--steps", "5"],
        stdout=subprocess.PIPE, env=child_environment,
    )  # fmt: skip
    process.stdout.close()
    assert process.wait() == 0
    assert (tmp_path / "run" / "checkpoints" / "step_00000005").is_dir()
