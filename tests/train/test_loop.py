"""The loop, through `myna train` in this process: what a run records, saves and survives."""

import gc
import json
import os
import signal
from itertools import pairwise

import pytest
import torch

from myna import spikes
from myna.commands import train_evaluations
from myna.errors import DeviceError, DivergedError, Stopped
from myna.model import decoder
from myna.model.checkpoint import list_checkpoints, verify
from myna.train import loop
from myna.train.evaluations import Evaluation
from myna.train.step import Stepper, SummedLoss


@pytest.fixture
def now(monkeypatch):
    """A list whose one number is the step being made, counted from 1."""
    number, seed_step = [0], Stepper.seed_step

    def noted(self, step):
        number[0] = step + 1
        seed_step(self, step)

    monkeypatch.setattr(Stepper, "seed_step", noted)
    return number


@pytest.fixture
def spoiled(monkeypatch, now):
    """Has the gradients of some steps not be finite; call with a function of the step's number."""
    forward = SummedLoss.forward

    def spoil(when):
        def spoiled(self, ids, targets):
            nats = forward(self, ids, targets)
            if when(now[0]) and nats.requires_grad:
                nats.register_hook(lambda gradient: gradient * float("inf"))
            return nats

        monkeypatch.setattr(SummedLoss, "forward", spoiled)

    return spoil


def steps_of(run, key="train_loss"):
    return [record["step"] for record in run.metrics() if key in record]


def values_of(run, key):
    return [record[key] for record in run.metrics() if key in record]


def saved(out):
    return [int(path.name[5:]) for path in reversed(list_checkpoints(out / "checkpoints"))]


def test_a_run_leaves_what_the_design_says(train, tmp_path):
    run = train(tmp_path / "run", 6, "--eval-every", 3, "--sample-every", 3, "--checkpoint-every", 4)
    assert {p.name for p in run.path.iterdir()} == {
        "recipe.json", "environment.json", "metrics.jsonl", "samples.jsonl", "checkpoints", "report.png",
        "report.html", ".lock",
    }  # fmt: skip
    assert saved(run.path) == [4, 6]
    assert run.recipe()["micro_batch"] == 4
    steps = [r for r in run.metrics() if "train_loss" in r]
    assert [(r["step"], r["tokens"]) for r in steps] == [(n, 256 * n) for n in range(1, 7)]
    assert set(steps[0]) == {
        "step", "tokens", "train_loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "seconds",
        "input_wait_seconds", "optimizer_seconds",
    }  # fmt: skip
    assert all(0 < r["optimizer_seconds"] < r["seconds"] for r in steps)
    evaluations = [r for r in run.metrics() if "val_loss" in r]
    assert [r["step"] for r in evaluations] == [0, 3, 6]
    assert all(a["val_loss"] > b["val_loss"] for a, b in pairwise(evaluations))
    assert [s["step"] for s in run.samples()] == [0, 3, 6]


def test_each_save_is_in_the_metrics(train, tmp_path):
    run = train(tmp_path / "run", 5, "--checkpoint-every", 2)
    assert [r for r in run.metrics() if "checkpoint" in r] == [
        {"step": n, "tokens": 256 * n, "checkpoint": f"step_{n:08d}"} for n in (2, 4, 5)
    ]


def test_stopping_and_going_on_is_bit_equal(train, hashes, now, tmp_path, monkeypatch):
    """A signal in every second step, against one undisturbed run: weights and moments."""
    whole = train(tmp_path / "whole", 7)
    backward = Stepper.backward

    def interrupted(self, *args, **options):
        if now[0] % 2 == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return backward(self, *args, **options)

    monkeypatch.setattr(Stepper, "backward", interrupted)
    for step in (2, 4, 6):
        with pytest.raises(
            Stopped, match=f"SIGTERM after step {step}, which is saved; the same command goes on"
        ):
            train(tmp_path / "parts", 7)
    parts = train(tmp_path / "parts", 7)
    assert hashes(parts.path, 7) == hashes(whole.path, 7)
    assert values_of(parts, "train_loss") == values_of(whole, "train_loss")


def test_evaluation_and_samples_do_not_change_training(train, hashes, tmp_path):
    plain = train(tmp_path / "plain", 4)
    watched = train(tmp_path / "watched", 4, "--eval-every", 1, "--sample-every", 1)
    assert hashes(plain.path, 4) == hashes(watched.path, 4)


def evaluate_with(monkeypatch, function, every_steps=1):
    """The run's one evaluation, as the table of `myna train` would have it."""
    recorded = set()

    def evaluate(network, step, before_batch):
        before_batch()
        values = function(network, step)
        recorded.add(step)
        return values

    evaluation = Evaluation("a new one", every_steps, evaluate, recorded.__contains__)
    monkeypatch.setattr(train_evaluations, "EVALUATIONS", [lambda around: evaluation])


def test_an_evaluation_that_fails_loses_no_checkpoint(train, tmp_path, monkeypatch):
    """A step's due checkpoint is saved first; and what the step owes is made up for by the next call."""
    seen = []

    def fails(network, step):
        seen.append(step)
        if seen == [0, 2]:
            raise KeyError("an evaluation of somebody's")
        return {"new": float(step)}

    evaluate_with(monkeypatch, fails, every_steps=2)
    with pytest.raises(KeyError):
        train(tmp_path / "run", 4, "--checkpoint-every", 2)
    verify(tmp_path / "run" / "checkpoints" / "step_00000002")
    run = train(tmp_path / "run", 4, "--checkpoint-every", 2)
    assert seen == [0, 2, 2, 4]
    assert [r["new"] for r in run.metrics() if "new" in r] == [0.0, 2.0, 4.0]
    assert steps_of(run) == [1, 2, 3, 4]


def test_the_last_evaluation_is_made_up_for_too(train, tmp_path, monkeypatch, capsys):
    """The last step is saved, its evaluation failed: the same command is not yet finished."""
    seen = []

    def fails(network, step):
        seen.append(step)
        if seen == [0, 3]:
            raise KeyError("an evaluation of somebody's")

    evaluate_with(monkeypatch, fails, every_steps=9)
    with pytest.raises(KeyError):
        train(tmp_path / "run", 3)
    train(tmp_path / "run", 3)
    assert "finished" not in capsys.readouterr().out
    train(tmp_path / "run", 3)
    assert "finished: 3 of 3 steps" in capsys.readouterr().out
    assert seen == [0, 3, 3]


def test_what_is_not_finite_stops_the_run_and_saves_nothing(train, spoiled, tmp_path):
    spoiled(lambda step: step == 4)
    with pytest.raises(DivergedError, match="step 4: the gradient's norm is") as stop:
        train(tmp_path / "run", 6, "--checkpoint-every", 1)
    # The run is in fp32 already.
    assert str(stop.value).endswith("; the last checkpoint is kept. Lower --learning-rate")
    assert saved(tmp_path / "run") == [1, 2, 3]
    with pytest.raises(DivergedError, match="; the last checkpoint is kept"):
        train(tmp_path / "run", 6, "--checkpoint-every", 9)  # which the call before saved


def test_a_stop_before_the_first_checkpoint_names_none(train, spoiled, tmp_path):
    spoiled(lambda step: step == 2)
    with pytest.raises(
        DivergedError, match=r"nothing was updated; no checkpoint was saved yet\. Lower"
    ) as stop:
        train(tmp_path / "run", 6, "--checkpoint-every", 0, "--precision", "bf16")
    assert str(stop.value).endswith("Lower --learning-rate, or train with --precision fp32")
    assert saved(tmp_path / "run") == []


def test_fp16_skips_what_is_not_finite_and_says_so(train, spoiled, tmp_path):
    spoiled(lambda step: step in (2, 3))
    run = train(tmp_path / "run", 5, "--precision", "fp16")
    assert values_of(run, "skipped") == [0, 1, 1, 0, 0]
    state = json.loads((run.checkpoints / "step_00000005" / "train_state.json").read_text())
    assert (state["step"], state["optimizer_steps"], state["skipped_in_row"]) == (5, 3, 0)
    assert state["scaler"]["scale"] == 2.0**16 / 4


def test_fp16_that_skips_every_step_ends_the_run_across_resumes_too(
    train, refused, spoiled, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "MOST_SKIPPED", 5)
    spoiled(lambda step: step > 3)
    args = ("--precision", "fp16", "--checkpoint-every", 1)
    train(tmp_path / "run", 6, *args)
    said = refused("--out", tmp_path / "run", "--steps", 99, "--override", *args)
    assert "step 8: fp16 has skipped 5 updates in a row" in said
    assert "the last checkpoint is kept" in said
    assert saved(tmp_path / "run") == list(range(1, 8))


def test_the_loop_gives_up_before_the_scale_is_nothing():
    assert 2.0**16 / 2**loop.MOST_SKIPPED < 1 < 2.0**16 / 2**10


def test_a_changed_recipe_goes_on_with_override_and_is_recorded(train, tmp_path, capsys):
    train(tmp_path / "run", 2)
    run = train(tmp_path / "run", 4, "--override", "--batch-tokens", 512)
    said = capsys.readouterr().out
    assert "going on with a changed recipe: --steps was 2, now 4; --batch-tokens was 256, now 512" in said
    assert "resuming after step 2" in said
    assert run.recipe()["batch_tokens"] == 512
    assert [r["tokens"] for r in run.metrics() if "train_loss" in r] == [256, 512, 1024, 1536]


def test_retention_on_the_way(train, tmp_path):
    run = train(tmp_path / "run", 9, "--checkpoint-every", 1, "--keep-last", 2, "--keep-every", 4)
    assert saved(run.path) == [4, 8, 9]


def test_recomputing_activations_changes_no_bit(train, hashes, tmp_path, monkeypatch):
    calls, recompute = [], torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(decoder, "checkpoint", lambda *a, **k: calls.append(1) or recompute(*a, **k))
    plain = train(tmp_path / "plain", 3)
    assert not calls
    again = train(tmp_path / "again", 3, "--activation-checkpointing")
    assert len(calls) == 3 * 2 * 2  # steps, micro-batches, layers
    assert hashes(plain.path, 3) == hashes(again.path, 3)


def test_a_spike_stops_before_the_update_and_saves_nothing(train, now, tmp_path, monkeypatch):
    monkeypatch.setattr(spikes, "WINDOW_STEPS", 4)
    backward = Stepper.backward

    def jumpy(self, batch, scale):
        return backward(self, batch, scale) * (2.0 if now[0] == 8 else 1.0)

    monkeypatch.setattr(Stepper, "backward", jumpy)
    with pytest.raises(DivergedError, match=r"step 8: the loss .* spikes"):
        train(tmp_path / "run", 9, "--checkpoint-every", 1, "--on-spike", "stop")
    assert saved(tmp_path / "run")[-1] == 7
    run = train(tmp_path / "run", 9, "--checkpoint-every", 1)
    state = json.loads((run.checkpoints / "step_00000009" / "train_state.json").read_text())
    assert state["spikes"]["steps"] == 9


@pytest.mark.parametrize(
    ("micro_batch", "says"),
    [
        (
            4,
            r"step 2: out of memory; try in this order .*: --micro-batch 2 \(it is 4\); .*--activation-checkp",
        ),
        (
            1,
            r"--activation-checkpointing \(a third more work\); a --sequence-length below 32; a smaller model\. ",
        ),
    ],
)
def test_out_of_memory_names_the_flag_and_leaves_the_checkpoint(
    train, tmp_path, monkeypatch, micro_batch, says
):
    original = Stepper.step

    def hungry(self, number, *args, **options):
        if number == 1:
            torch.empty(1 << 60, dtype=torch.uint8)  # what the allocator itself says
        return original(self, number, *args, **options)

    monkeypatch.setattr(Stepper, "step", hungry)
    with pytest.raises(DeviceError, match=says):
        train(tmp_path / "run", 3, "--checkpoint-every", 1, "--micro-batch", micro_batch)
    verify(tmp_path / "run" / "checkpoints" / "step_00000001")


def test_the_collector_rests_during_steps_and_works_again_after(train, tmp_path, monkeypatch):
    enabled, original = [], Stepper.step
    monkeypatch.setattr(Stepper, "step", lambda *a, **k: enabled.append(gc.isenabled()) or original(*a, **k))
    train(tmp_path / "run", 2)
    assert enabled == [False, False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_hellaswag_is_scored_on_the_way_with_a_compiled_step(train, tmp_path, shared_data):
    items = shared_data("hellaswag_val_first500.jsonl").read_text().splitlines()[:6]
    (tmp_path / "hs.jsonl").write_text("\n".join(items) + "\n")
    every = ("--hellaswag-every", 1, "--eval-every", 1, "--sample-every", 1)
    run = train(tmp_path / "run", 2, "--compile", "--hellaswag", tmp_path / "hs.jsonl", *every)
    scored = [r for r in run.metrics() if "hellaswag_acc" in r]
    assert [r["step"] for r in scored] == [0, 1, 2]
    assert {"hellaswag_acc", "hellaswag_acc_token", "hellaswag_acc_char"} <= set(scored[0])
