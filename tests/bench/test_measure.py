"""The parent's side, with workers that are made up: what a rung reports, lacks, or dies of."""

import dataclasses
import json
import os
import sys
import time
from typing import Any

import pytest

from myna.bench import measure
from myna.bench.ladder import LADDER, Machine
from myna.bench.measure import KilledError, Plan, Watcher, measure_ladder, run_job
from myna.errors import ChildError, DeviceError
from myna.recipes import named

T4 = Machine("cuda", "a T4", (7, 5), (), (), "2.13.0", 2, 1e12, "measured")
H100 = dataclasses.replace(T4, name="an H100", capability=(9, 0))
PLAN = Plan(named("gpt2-124m"), 50257, LADDER, 4, 1, 5, "auto")
MEASURED = {"ms_per_step": 2.0, "flops": 5e11, "compiler_failure": "", "compiled": False}


def made_up(monkeypatch, machine: Machine, answers: dict[str, Any]) -> list[dict[str, Any]]:
    """Has rungs answer as given instead of running; returns the jobs they get."""
    jobs = []

    def run_job(job, on_step=lambda number: None):
        if job["task"] == "survey":
            return dataclasses.asdict(machine)
        jobs.append(job)
        answer = answers.get(job["rung"] if job["task"] == "rung" else "fit", MEASURED)
        if isinstance(answer, Exception):
            raise answer
        on_step(1)
        return dict(answer)

    monkeypatch.setattr(measure, "run_job", run_job)
    return jobs


def by_name(ladder: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in ladder["rungs"]}


def test_what_an_old_gpu_lacks_is_skipped_and_later_rungs_go_without(monkeypatch):
    jobs = made_up(monkeypatch, T4, {})
    rungs = by_name(measure_ladder(PLAN, Watcher()))
    assert {name for name, record in rungs.items() if "skipped" in record} == {"tf32", "bf16"}
    assert rungs["fused-adamw"]["without"] == ["tf32", "bf16"]
    assert rungs["ours"]["without"] == []
    assert [job["rung"] for job in jobs] == [n for n in rungs if n not in ("tf32", "bf16")]
    assert all(job["without"] == ["tf32", "bf16"] for job in jobs)


def test_a_compiler_that_fails_is_named_and_later_rungs_go_without(monkeypatch):
    why = "torch.compile failed: no C++ compiler"
    jobs = made_up(monkeypatch, H100, {"compile": {"skipped": why, "compiler_failure": why}})
    rungs = by_name(measure_ladder(PLAN, Watcher()))
    assert rungs["compile"]["skipped"] == why
    assert rungs["flash-attention"]["without"] == ["compile"]
    assert [job["without"] for job in jobs] == [[]] * 5 + [["compile"]] * 4


@pytest.mark.parametrize(
    "answer", [{"skipped": "out of memory"}, KilledError("rung fp32: the system ended its process")]
)
def test_a_rung_without_enough_memory_is_skipped_and_the_next_is_the_first(monkeypatch, answer):
    made_up(monkeypatch, H100, {"fp32": answer, "ours": MEASURED | {"ms_per_step": 1.0}})
    rungs = by_name(measure_ladder(PLAN, Watcher()))
    assert "memory" in rungs["fp32"]["skipped"]
    assert (rungs["tf32"]["ratio"], rungs["ours"]["ratio"]) == (1.0, 2.0)
    assert rungs["ours"]["share_of_limit"] == 0.5


def test_the_batch_is_the_first_rungs_that_any_fits(monkeypatch):
    plan = dataclasses.replace(PLAN, micro_batch="auto")
    made_up(monkeypatch, H100, {"fit": {"micro_batch": 16}})
    assert measure_ladder(plan, Watcher())["micro_batch"] == 16
    jobs = made_up(monkeypatch, H100, {"fit": {"micro_batch": 0}})
    assert measure_ladder(plan, Watcher())["micro_batch"] == 1
    assert [job["rung"] for job in jobs if job["task"] == "fit"] == [rung.name for rung in LADDER]


def test_a_ladder_with_no_rung_left_says_why(monkeypatch):
    made_up(monkeypatch, T4, {})
    with pytest.raises(DeviceError, match=r"none of the rungs .*TF32: needs compute capability 8\.0"):
        measure_ladder(dataclasses.replace(PLAN, rungs=LADDER[1:2]), Watcher())


def test_what_was_measured_says_why_it_is_one_rung(monkeypatch):
    made_up(monkeypatch, H100, {})
    plan = dataclasses.replace(PLAN, recipe=named("speedrun-124m"), rungs=LADDER[-1:])
    ladder = measure_ladder(plan, Watcher())
    assert ladder["why_only_ours"].endswith("this is nanochat with muon")
    assert (ladder["model"]["network"], ladder["model"]["optimizer"]) == ("nanochat", "muon")
    assert [record["name"] for record in ladder["rungs"]] == ["ours"]
    assert measure_ladder(PLAN, Watcher())["why_only_ours"] is None


SAY = "import json; print(json.dumps({!r}), flush=True)"


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("import os; os.kill(os.getpid(), 9)", KilledError, "rung bf16: the system ended its process"),
        ("import os; os.kill(os.getpid(), 11)", ChildError, "rung bf16: its process ended with SIGSEGV"),
        (
            "import sys; print('one\\nlast words\\n', file=sys.stderr); sys.exit(3)",
            ChildError,
            "rung bf16: its process ended with exit code 3: last words",
        ),
        ("", ChildError, "it said nothing"),
        (
            SAY.format({"event": "error", "error": {"kind": "defect", "message": "KeyError: 3"}}),
            ChildError,
            "rung bf16: KeyError: 3",
        ),
        (SAY.format({"event": "step", "number": 1}), ChildError, "exit code 0"),
        (
            SAY.format({"event": "error", "error": {"kind": "DeviceError", "message": "no GPU"}}),
            DeviceError,
            "no GPU",
        ),
    ],
)
def test_a_worker_that_fails_is_one_line_of_its_kind(monkeypatch, code, kind, says):
    monkeypatch.setattr(measure, "command", lambda job: [sys.executable, "-c", code])
    with pytest.raises(kind) as raised:
        run_job({"task": "rung", "rung": "bf16"})
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == (2 if kind is DeviceError else 1)


def test_a_defect_has_exit_code_1_and_its_last_line():
    with pytest.raises(ChildError, match="looking at the machine: KeyError: 'device'"):
        run_job({"task": "survey"})


def test_workers_get_the_environment_and_an_empty_place_to_compile(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    code = (
        "import json, os; names = ('GOMP_SPINCOUNT', 'TORCHINDUCTOR_CACHE_DIR');"
        "value = {n: os.environ[n] for n in names} | {'empty': not os.listdir(os.environ[names[1]])};"
        "print(json.dumps({'event': 'result', 'value': value}))"
    )
    monkeypatch.setattr(measure, "command", lambda job: [sys.executable, "-c", code])
    value = run_job({"task": "survey"})
    assert value["GOMP_SPINCOUNT"] == "1000"
    assert value["empty"]
    assert not os.path.exists(value["TORCHINDUCTOR_CACHE_DIR"])


def test_an_interruption_takes_along_all_that_the_worker_started(monkeypatch):
    code = (
        "import json, subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(json.dumps({'event': 'step', 'number': child.pid}), flush=True); time.sleep(600)"
    )
    monkeypatch.setattr(measure, "command", lambda job: [sys.executable, "-c", code])
    pids = []

    def interrupt(pid):
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job({"task": "survey"}, interrupt)
    until = time.monotonic() + 30
    while alive(pids[0]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pids[0])


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_worker_is_a_program_whose_job_is_json():
    *program, job = measure.command({"task": "survey"})
    assert program[0] == sys.executable
    assert program[-1] == "myna.bench.worker"
    assert json.loads(job) == {"task": "survey"}
