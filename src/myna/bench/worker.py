"""A process that does one thing for `myna bench`: surveys the machine, finds a batch that fits, measures a rung,
or a way to compute attention.

`python -m myna.bench.worker JOB`. Each rung has a process of its own, so that its peak memory, its allocator and its
settings are its own. Events go out on stdout, a JSON line each: `step` after each step, and at the end `result` or
`error`. It ends when its stdin does: a parent that is killed takes it along.
"""

import contextlib
import gc
import json
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from myna.bench.attention_ways import measure_way
from myna.bench.ladder import COMPILE, OURS, WARM_UP_STEPS
from myna.bench.lecture import Batch
from myna.bench.limits import flops_per_token, machine_of
from myna.bench.memory import peak_memory_bytes
from myna.bench.rungs import Step, make_step
from myna.device import resolve_device, synchronize
from myna.errors import MynaError, first_line, to_record
from myna.train.build import new_network
from myna.train.machines.pauses import garbage_collected_at_pauses
from myna.train.memory import is_out_of_memory
from myna.train.recipe import Recipe

CPU_TOKENS = 2048  # computed at once there: two of the lecture's sequences

Send = Callable[[dict[str, Any]], None]


def survey(job: dict[str, Any]) -> dict[str, Any]:
    """The machine: what it has, and what its matrix products reach."""
    return asdict(machine_of(resolve_device(job["device"])))


def fit(job: dict[str, Any]) -> dict[str, Any]:
    """How many sequences to compute at once: on a GPU the largest power of two with which a rung's step fits, or 0.

    Elsewhere as many as are CPU_TOKENS.
    """
    device, recipe = resolve_device(job["device"]), Recipe.from_dict(job["recipe"])
    if device.type != "cuda":
        return {"micro_batch": max(1, CPU_TOKENS // recipe.sequence_length)}
    fitting, candidate = 0, 1
    while candidate <= recipe.batch_samples:
        try:
            two_steps(job | {"micro_batch": candidate}, recipe)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        fitting, candidate = candidate, 2 * candidate
    return {"micro_batch": fitting}


def two_steps(job: dict[str, Any], recipe: Recipe) -> None:
    """Makes a rung's first two steps, and forgets them: the optimizer's moments are there from the second on."""
    step, _ = prepared(job, recipe)
    first_step(step)
    step()


def prepared(job: dict[str, Any], recipe: Recipe) -> tuple[Step, str]:
    """The step of the job's rung, with weights and batches that depend on the recipe's seed alone."""
    device = resolve_device(job["device"])
    network = new_network(recipe, job["vocab_size"], device)
    batches = batches_of(job, recipe, device)
    return make_step(job["rung"], network, recipe, batches, job["without"], job["compile_by"])


def batches_of(job: dict[str, Any], recipe: Recipe, device: torch.device) -> list[Batch]:
    """Ids drawn at random: what a step costs does not depend on what they say."""
    shape = (job["accumulate"], job["micro_batch"], recipe.sequence_length + 1)
    drawn = torch.randint(job["vocab_size"], shape, generator=torch.Generator().manual_seed(recipe.seed))
    ids = drawn.to(device)
    return [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]


def measure(job: dict[str, Any], send: Send) -> dict[str, Any]:
    """One rung: its first step, some to warm up, then those that count; or why it was `skipped`."""
    device, recipe = resolve_device(job["device"]), Recipe.from_dict(job["recipe"])
    try:
        step, compiler_failure = prepared(job, recipe)
        with garbage_collected_at_pauses() if job["rung"] == OURS else contextlib.nullcontext():
            first_loss, failure = first_step(step)
            compiler_failure = failure or compiler_failure
            if failure and job["rung"] == COMPILE:
                return {"skipped": failure, "compiler_failure": failure}
            synchronize(device)
            send({"event": "step", "number": 1})
            step.parts()  # those of the first step don't count
            seconds, parts, last_loss = timed(step, WARM_UP_STEPS + job["steps"], device, send)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        tokens = f"{job['micro_batch']} x {recipe.sequence_length} tokens"
        lower = "--micro-batch" if job["micro_batch"] > 1 else "--sequence-length, or fewer --layers,"
        return {"skipped": f"out of memory with {tokens}; a lower {lower} may fit"}
    counted = seconds[WARM_UP_STEPS:]
    median = statistics.median(counted)
    rate = job["accumulate"] * job["micro_batch"] * recipe.sequence_length / median
    record = {
        "ms_per_step": 1e3 * median,
        "tokens_per_second": rate,
        "flops": rate * flops_per_token(recipe, job["vocab_size"]),
        "step_seconds": counted,
        "peak_memory_bytes": peak_memory_bytes(device),
        "first_loss": first_loss,
        "last_loss": last_loss,
        "compiled": step.compiled,
        "compiler_failure": compiler_failure,
        "skipped_updates": step.skipped_updates(),
    }
    if shares := shares_of(parts[WARM_UP_STEPS:], median):
        record["parts"] = shares
    return record


def shares_of(parts: Sequence[dict[str, float]], step_seconds: float) -> dict[str, dict[str, float]]:
    """What each timed part of a step takes, by the median over some steps. The longest first: it holds the others.

    >>> shares_of([{"optimizer": 0.5}, {"optimizer": 0.5}], 2.0)
    {'optimizer': {'ms_per_step': 500.0, 'share_of_step': 0.25}}
    """
    medians = {name: statistics.median(part.get(name, 0.0) for part in parts) for name in parts[0]}
    return {
        name: {"ms_per_step": 1e3 * seconds, "share_of_step": seconds / step_seconds}
        for name, seconds in sorted(medians.items(), key=lambda part: -part[1])
    }


def first_step(step: Step) -> tuple[float, str]:
    """Makes the first step, compiled where that was asked and works; returns its loss, and why it does not work."""
    if not step.compiled:
        return step(), ""
    try:
        return step(), ""
    except Exception as error:  # the compiler's backends raise whatever their tools raise
        if is_out_of_memory(error):
            raise
        failure = f"torch.compile failed: {first_line(error)}"
    step.use_eager()
    return step(), failure


def timed(
    step: Step, count: int, device: torch.device, send: Send
) -> tuple[Sequence[float], Sequence[dict[str, float]], float]:
    """Seconds of so many steps, seconds of their parts, and the last one's loss."""
    seconds, parts, loss = [], [], 0.0
    for number in range(count):
        began = time.perf_counter()
        loss = step()
        synchronize(device)  # the update may still be under way when the loss is known
        seconds.append(time.perf_counter() - began)
        parts.append(step.parts())
        send({"event": "step", "number": 2 + number})
    return seconds, parts, loss


def answer(job: dict[str, Any], send: Send) -> dict[str, Any]:
    """Does the job; its last event."""
    tasks = {
        "survey": lambda: survey(job),
        "fit": lambda: fit(job),
        "rung": lambda: measure(job, send),
        "attention": lambda: measure_way(job, lambda length: send({"event": "step", "number": length})),
    }
    try:
        return {"event": "result", "value": tasks[job["task"]]()}
    except Exception as error:  # of a defect of ours, the traceback stays in this process's stderr
        if not isinstance(error, MynaError):
            traceback.print_exc()
        return {"event": "error", "error": to_record(error)}


def main() -> None:
    """Reads the job from the command line, sends events."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between them

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        if os.getpgrp() == os.getpid():  # as the parent started us: then with what the compiler has started
            os.killpg(0, signal.SIGKILL)
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    send(answer(json.loads(sys.argv[1]), send))


if __name__ == "__main__":
    main()
