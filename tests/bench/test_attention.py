"""`myna bench --attention`: what a way reports, what the parent makes of it, and how it is shown."""

import io
import json

import pytest
import torch

from myna.bench import attention, attention_ways, limits, worker
from myna.bench.attention_picture import attention_picture
from myna.bench.attention_table import print_attention
from myna.bench.measure import KilledError
from myna.cli import main

JOB = {
    "way": "ours", "lengths": [8, 24], "tokens": 32, "n_head": 2, "n_embd": 16, "steps": 2, "device": "cpu",
    "precision": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Jobs are done here, without measuring the machine and without its allocator being told anything."""

    def run_job(job):
        last = worker.answer(job, lambda event: None)
        assert last["event"] == "result", last
        return json.loads(json.dumps(last["value"]))

    monkeypatch.setattr(attention, "run_job", run_job)
    monkeypatch.setattr(attention_ways, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(limits, "best_flops", lambda device, dtype: (1e12, "measured"))


@pytest.mark.parametrize("way", attention.WAYS)
def test_every_way_computes_the_same_and_is_timed_at_every_length(way):
    told = []
    found = attention_ways.measure_way(JOB | {"way": way}, told.append)
    assert told == [8, 24]
    assert found["difference"] < 1e-5
    assert [(r["length"], r["sequences"]) for r in found["lengths"]] == [(8, 4), (24, 1)]
    assert all(len(record["step_seconds"]) == 2 and record["ms"] > 0 for record in found["lengths"])
    assert found["is_pytorchs"] == (way == "ours")  # fp32 on a CPU


def test_ours_in_bf16_on_a_cpu_is_ours():
    assert not attention_ways.measure_way(JOB | {"precision": "bf16"}, print)["is_pytorchs"]


def test_out_of_memory_at_one_length_leaves_the_others(monkeypatch):
    run_once = attention_ways.run_once

    def hungry(job, length, *rest):
        if length == 24:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_once(job, length, *rest)

    monkeypatch.setattr(attention_ways, "run_once", hungry)
    short, long = attention_ways.measure_way(JOB, print)["lengths"]
    assert "ms" in short
    assert long["skipped"] == "out of memory"


def test_from_end_to_end_with_a_way_that_the_system_ends(tmp_path, capsys, monkeypatch):
    run_job = attention.run_job

    def killed(job):
        if job.get("way") == "four-operations":
            raise KilledError("the system ended its process")
        return run_job(job)

    monkeypatch.setattr(attention, "run_job", killed)
    monkeypatch.setattr(attention, "TOKENS", {"cpu": 64})
    call = [
        "bench",
        "--attention",
        "--recipe",
        "pydoc",
        "--lengths",
        "32,16",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*call, "--out", str(tmp_path / "new")]) == 0
    shown = capsys.readouterr().out
    assert "attention of pydoc: 4 heads of 64, 64 tokens at once" in shown
    assert "skipped: four operations at T = 16, 32: the system ended its process" in shown
    found = json.loads((tmp_path / "new" / "attention.json").read_text())
    assert found["lengths"] == [16, 32]
    assert [way["name"] for way in found["ways"]] == list(attention.WAYS)
    assert (tmp_path / "new" / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert attention_picture(found) == (tmp_path / "new" / "attention.png").read_bytes()
    assert main([*call, "--out", str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "pydoc"


def test_the_tables_are_plain_when_piped(capsys, monkeypatch):
    records = [{"length": n, "ms": n * 1.5, "memory_bytes": n * 10**6} for n in (16, 32)]
    way = {"dtype": "float32", "is_pytorchs": True, "difference": 2e-7, "lengths": records}
    machine = {"device": "cpu", "name": "a [chip]", "threads": 1, "torch": "2.13.0"}
    found = {
        "recipe": "pydoc", "n_head": 4, "n_embd": 256, "tokens": 4096, "lengths": [16, 32], "machine": machine,
        "ways": [{"name": "ours", "title": "ours"} | way],
    }  # fmt: skip
    monkeypatch.setattr("sys.stdout", io.StringIO())
    import sys

    print_attention(found, [])
    lines = [" ".join(line.split()) for line in sys.stdout.getvalue().splitlines()]
    assert lines[0].endswith("float32 · a [chip], 1 thread, torch 2.13.0")
    assert "ours 24.0 48.0" in lines
    assert "ours 16 MB 32 MB" in lines
    assert "ours is PyTorch's call here; its own blocks are for bf16 on a CPU" in lines
    assert lines[-2].endswith("T = 16: ours 2e-07")
