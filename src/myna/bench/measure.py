"""The parent's side: each rung in a process of its own, one after the other, and what came of it as plain values."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from myna.bench.ladder import (
    COMPILE,
    LADDER,
    Machine,
    Rung,
    compared,
    left_out,
    missing,
    why_only_ours,
)
from myna.errors import ChildError, DeviceError, from_record
from myna.settings import CompileBy
from myna.train.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    recipe: Recipe  # its shape, sequence length, optimizer, precision and seed count
    vocab_size: int
    rungs: Sequence[Rung]
    micro_batch: Literal["auto"] | int
    accumulate: int
    steps: int  # timed, a rung
    device: Literal["auto", "cpu", "cuda", "mps"]
    compile_by: CompileBy = "auto"  # the pieces that our rung is compiled in


class KilledError(ChildError):
    """The system ended the process, as Linux does when memory runs out."""


class Watcher:
    """Is told how the ladder goes; this one keeps it to itself."""

    def begin(self, title: str) -> None:
        """A rung begins."""

    def step(self) -> None:
        """It made a step."""

    def end(self, record: dict[str, Any]) -> None:
        """It is measured, or skipped."""


def measure_ladder(plan: Plan, watcher: Watcher) -> dict[str, Any]:
    """Measures the rungs; the whole result, as ladder.json has it.

    Raises:
        DeviceError: the device is not there, or not one of the rungs can be measured on it.
        ChildError: a rung failed by a defect.
    """
    config = plan.recipe.network_config(plan.vocab_size)
    watcher.begin("the machine")
    survey = {"task": "survey", "device": plan.device}
    machine = Machine.from_json(run_job(survey))
    reasons = {rung.name: why for rung in LADDER if (why := missing(rung, machine, config))}
    job = job_of(plan, machine.device) | {"without": list(reasons)}
    if plan.micro_batch == "auto":
        job["micro_batch"] = fitting_micro_batch(job, [r for r in plan.rungs if r.name not in reasons])
    records = []
    for rung in plan.rungs:
        watcher.begin(rung.title)
        record = {"name": rung.name, "title": rung.title, "change": rung.change}
        if rung.name in reasons:
            record["skipped"] = reasons[rung.name]
        else:
            record |= run_rung(rung, job, watcher) | {"without": left_out(rung, job["without"])}
        if record.get("compiler_failure"):
            job["without"] = [*reasons, COMPILE]  # it would fail on the later rungs too
        records.append(record)
        watcher.end(record)
    if all("skipped" in record for record in records):
        why = "; ".join(f"{record['title']}: {record['skipped']}" for record in records)
        raise DeviceError(f"none of the rungs asked for can be measured here ({why})")
    # Again at the end: where something else was running at the start, the limit would be too low.
    limits = [machine.matrix_flops, Machine.from_json(run_job(survey)).matrix_flops]
    machine = replace(machine, matrix_flops=max(limits))
    return about(plan, machine, job) | {
        "matrix_flops_before_and_after": limits,
        "rungs": compared(records, machine.matrix_flops),
    }


def job_of(plan: Plan, device: str) -> dict[str, Any]:
    """What every rung's job has."""
    return {
        "recipe": plan.recipe.to_dict(),
        "vocab_size": plan.vocab_size,
        "device": device,
        "accumulate": plan.accumulate,
        "steps": plan.steps,
        "without": [],
        "micro_batch": plan.micro_batch,
        "compile_by": plan.compile_by,
    }


def fitting_micro_batch(job: dict[str, Any], rungs: Sequence[Rung]) -> int:
    """As many sequences as fit the first of the rungs: each later one needs less. All rungs get the same batch.

    Where not even one fits that rung, the next is asked: the first will be skipped, and say so. 1 where none fits.
    """
    for rung in rungs:
        found = run_job(job | {"task": "fit", "rung": rung.name})
        if found["micro_batch"]:
            return found["micro_batch"]
    return 1


def run_rung(rung: Rung, job: dict[str, Any], watcher: Watcher) -> dict[str, Any]:
    """Measures one rung; a process that the system ended for want of memory is one that was skipped."""
    reached: dict[str, float] = {}
    began = time.perf_counter()

    def on_step(number: int) -> None:
        if number == 1:
            reached["first_step_seconds"] = time.perf_counter() - began
        watcher.step()

    try:
        record = run_job(job | {"task": "rung", "rung": rung.name}, on_step)
    except KilledError:
        return {
            "skipped": "the system ended its process, as it does when memory runs out; try --micro-batch 1"
        }
    return record if "skipped" in record else record | reached


def about(plan: Plan, machine: Machine, job: dict[str, Any]) -> dict[str, Any]:
    """What was measured, and on what."""
    recipe = plan.recipe
    return {
        "machine": asdict(machine),
        "model": {
            "recipe": recipe.name,
            "network": recipe.network,
            "optimizer": recipe.optimizer,
            "n_layer": recipe.n_layer,
            "n_head": recipe.n_head,
            "n_embd": recipe.n_embd,
            "block_size": recipe.block_size,
            "vocab_size": plan.vocab_size,
        },
        "micro_batch": job["micro_batch"],
        "sequence_length": recipe.sequence_length,
        "accumulate": plan.accumulate,
        "tokens_per_step": job["micro_batch"] * recipe.sequence_length * plan.accumulate,
        "timed_steps": plan.steps,
        "precision_of_ours": recipe.precision,
        "compile_by": plan.compile_by,
        "why_only_ours": why_only_ours(recipe),
    }


def run_job(job: dict[str, Any], on_step: Callable[[int], None] = lambda number: None) -> dict[str, Any]:
    """Has a worker process do a job, and gives its result.

    Args:
        on_step: told the number of each step as it is made.
    Raises:
        MynaError: of the kind that the worker met. ChildError: it failed by a defect, or was ended.
    """
    with tempfile.TemporaryFile() as complaints, worker(job, complaints) as process:
        assert process.stdout is not None
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if last["event"] == "step":
                on_step(last["number"])
        code = process.wait()
        if last.get("event") == "result":
            return last["value"]
        if last.get("event") == "error":
            raise from_record(last["error"], named(job))
        complaints.seek(0)
        lines = complaints.read().decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if code == -signal.SIGKILL:
        raise KilledError(f"{named(job)}: the system ended its process; did memory run out?")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    raise ChildError(f"{named(job)}: its process ended with {how}: {said}")


def named(job: dict[str, Any]) -> str:
    """What a job is about, for people."""
    return {
        "survey": "looking at the machine",
        "fit": f"finding a batch that fits {job.get('rung')}",
        "rung": f"rung {job.get('rung')}",
        "attention": f"attention by {job.get('way')}",
    }[job["task"]]


def command(job: dict[str, Any]) -> list[str]:
    """The worker's command line."""
    return [sys.executable, "-P", "-m", "myna.bench.worker", json.dumps(job)]


@contextlib.contextmanager
def worker(job: dict[str, Any], complaints: IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker process, which is gone at the end of the block, with all it started.

    It compiles from scratch, so that the seconds to its first step don't depend on what was compiled here before.
    """
    root = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory(prefix="myna-bench-", ignore_cleanup_errors=True) as compiled:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "TORCHINDUCTOR_CACHE_DIR": compiled,
            "TRITON_CACHE_DIR": str(Path(compiled) / "triton"),
        }
        process = subprocess.Popen(
            command(job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            process_group=0,  # Ctrl-C is for the parent, which ends the whole group
        )
        try:
            with process:  # closes its pipes
                try:
                    yield process
                finally:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.wait()
