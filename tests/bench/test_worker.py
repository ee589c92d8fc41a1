import dataclasses
from typing import Any

import pytest
import torch

from myna.bench import limits, worker
from myna.bench.ladder import Machine
from myna.bench.lecture import LectureStep
from myna.model.nanochat import NanoChat
from myna.train.recipe import Recipe

SHAPE: dict[str, Any] = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "sequence_length": 8, "batch_tokens": 8 * 64,
    "precision": "fp32",
}  # fmt: skip
RECIPE = Recipe(**SHAPE)
JOB = {
    "task": "rung",
    "rung": "fp32",
    "recipe": RECIPE.to_dict(),
    "vocab_size": 50,
    "device": "cpu",
    "micro_batch": 2,
    "accumulate": 2,
    "steps": 3,
    "without": [],
    "compile_by": "auto",
}


def result(job):
    events = []
    last = worker.answer(job, events.append)
    assert last["event"] == "result", last
    return last["value"], events


def test_a_rung_is_measured():
    value, events = result(JOB)
    assert [event["number"] for event in events] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]  # the first, two to warm up, three that count
    assert len(value["step_seconds"]) == 3
    assert value["tokens_per_second"] == pytest.approx(2 * 2 * 8 / (value["ms_per_step"] / 1e3))
    assert value["last_loss"] < value["first_loss"]
    assert value["peak_memory_bytes"] > 1e8
    assert not value["compiled"]
    assert "parts" not in value  # the lecture's step is timed as a whole


@pytest.mark.parametrize(
    ("optimizer", "parts"), [("adamw", ["optimizer"]), ("muon", ["optimizer", "orthogonalisation"])]
)
def test_another_network_is_measured_with_the_share_of_its_update(monkeypatch, optimizer, parts):
    monkeypatch.setattr("myna.bench.rungs.keep_freed_memory", lambda: True)
    recipe = Recipe(
        **{**SHAPE, "compile": False, "network": "nanochat", "optimizer": optimizer, "learning_rate": 1e-3}
    )
    value, _ = result(JOB | {"rung": "ours", "recipe": recipe.to_dict()})
    network = NanoChat(recipe.network_config(50))
    assert value["flops"] == pytest.approx(value["tokens_per_second"] * network.flops_per_token(8))
    assert list(value["parts"]) == parts
    sizes = [part["ms_per_step"] for part in value["parts"].values()]
    assert value["ms_per_step"] > sizes[0] >= sizes[-1] > 0
    for part in value["parts"].values():
        assert part["share_of_step"] == pytest.approx(part["ms_per_step"] / value["ms_per_step"])


def test_the_clock_runs_until_the_device_is_done_and_not_while_it_warms_up(monkeypatch):
    """By a step whose update takes a second after its loss is known, and nine more while it warms up."""
    now, under_way, made = 0.0, 0.0, 0

    class Step:
        compiled = False

        def parts(self):
            return {"optimizer": under_way}  # the one that is being made has not passed yet

        def skipped_updates(self):
            return 0

        def __call__(self):
            nonlocal under_way, made
            made += 1
            under_way = 10.0 if made <= 3 else 1.0
            return 0.0

    def synchronize(device):
        nonlocal now, under_way
        now, under_way = now + under_way, 0.0

    monkeypatch.setattr(worker, "prepared", lambda job, recipe: (Step(), ""))
    monkeypatch.setattr(worker, "synchronize", synchronize)
    monkeypatch.setattr(worker.time, "perf_counter", lambda: now)
    assert result(JOB)[0]["step_seconds"] == [1.0, 1.0, 1.0]


def test_the_machine_is_looked_at(monkeypatch):
    monkeypatch.setattr(limits, "best_flops", lambda device, dtype: (1e12, "measured"))
    value, _ = result({"task": "survey", "device": "cpu"})
    machine = Machine.from_json(value)
    assert machine.device == "cpu"
    assert machine.capability is None
    assert machine.name
    assert machine.matrix_about in ("measured, float32", "measured, bfloat16")


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    last = worker.answer({"task": "survey", "device": "cuda"}, print)
    assert (last["event"], last["error"]["kind"]) == ("error", "DeviceError")


def test_a_network_larger_than_the_machine_is_named():
    huge = dataclasses.replace(RECIPE, n_embd=2**22)
    last = worker.answer(JOB | {"recipe": huge.to_dict()}, print)
    assert (last["event"], last["error"]["kind"]) == ("error", "ModelError")
    assert (
        "fit the memory of cpu: weights, gradients and the optimizer's state take" in last["error"]["message"]
    )


def out_of_memory(*args):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_out_of_memory_is_a_reason_to_skip(monkeypatch):
    monkeypatch.setattr(LectureStep, "__call__", out_of_memory)
    why = "out of memory with 2 x 8 tokens; a lower --micro-batch may fit"
    assert result(JOB)[0] == {"skipped": why}
    monkeypatch.setattr(worker, "prepared", out_of_memory)
    assert result(JOB)[0] == {"skipped": why}
    assert "--sequence-length" in result(JOB | {"micro_batch": 1})[0]["skipped"]


def test_a_defect_is_no_reason_to_skip(monkeypatch, capsys):
    def broken(self):
        raise RuntimeError("shapes differ\nand a long trace")

    monkeypatch.setattr(LectureStep, "__call__", broken)
    last = worker.answer(JOB, lambda event: None)
    assert (last["event"], last["error"]["kind"]) == ("error", "defect")
    assert last["error"]["message"] == "RuntimeError: shapes differ"
    assert "Traceback" in capsys.readouterr().err


def no_compiler(module, **options):
    def fails(*args):
        raise RuntimeError("no C++ compiler here\nand a long trace")

    return fails


def test_a_compiler_that_fails_skips_its_own_rung(monkeypatch):
    monkeypatch.setattr(torch, "compile", no_compiler)
    value, events = result(JOB | {"rung": "compile", "without": ["tf32"]})
    assert value["skipped"] == value["compiler_failure"] == "torch.compile failed: no C++ compiler here"
    assert not events


@pytest.mark.parametrize("rung", ["fused-adamw", "ours"])
def test_a_compiler_that_fails_leaves_the_later_rungs_without_it(monkeypatch, rung):
    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr("myna.bench.rungs.keep_freed_memory", lambda: True)
    value, _ = result(JOB | {"rung": rung, "without": ["tf32"]})
    assert "no C++ compiler here" in value["compiler_failure"]
    assert not value["compiled"]
    assert value["ms_per_step"] > 0


@pytest.mark.parametrize(("room", "fits"), [(0, 0), (5, 4), (16, 16), (10**6, 64)])
def test_a_batch_that_fits_is_found_by_doubling(monkeypatch, room, fits):
    def two_steps(job, recipe):
        if job["micro_batch"] > room:
            out_of_memory()

    monkeypatch.setattr(worker, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(worker, "two_steps", two_steps)
    assert result(JOB | {"task": "fit", "device": "cuda"})[0] == {"micro_batch": fits}


def test_on_a_cpu_a_batch_is_2048_tokens():
    assert result(JOB | {"task": "fit"})[0] == {"micro_batch": 256}
    long = dataclasses.replace(RECIPE, block_size=4096, sequence_length=4096, batch_tokens=4096)
    assert result(JOB | {"task": "fit", "recipe": long.to_dict()})[0] == {"micro_batch": 1}


def test_two_steps_are_tried_out():
    worker.two_steps(JOB, RECIPE)


def test_batches_depend_on_the_seed_alone():
    a, b = (worker.batches_of(JOB, RECIPE, torch.device("cpu")) for _ in range(2))
    assert len(a) == 2
    for (ids, targets), (again, _) in zip(a, b, strict=True):
        assert ids.shape == (2, 8)
        assert torch.equal(ids, again)
        assert torch.equal(ids[:, 1:], targets[:, :-1])
