"""Where the time of our step goes, by kernel: GPT-2 124M, 64 x 1024 tokens, compiled, as `myna train` makes it."""

import json
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu import arguments
from myna.bench.ladder import OURS
from myna.bench.rungs import Step
from myna.bench.worker import first_step, prepared
from myna.device import synchronize
from myna.recipes import named, vocab_size

WARM_UP, STEPS, PROFILED = 3, 5, 3
LISTED = 25


def main() -> None:
    """Prints the value."""
    call = arguments.read(__doc__)
    device = torch.device(call.device)
    step = make(call.device, call.tiny)
    _, failure = first_step(step)
    for _ in range(WARM_UP):
        step()
    taken = []
    for _ in range(STEPS):
        synchronize(device)
        began = time.perf_counter()
        step()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    kernels = profiled(step, device)
    whole = sum(kernel["ms"] for kernel in kernels)
    value = {
        "ms_per_step": 1e3 * statistics.median(taken),
        "kernels_ms_per_step": whole,
        "compiler_failure": failure,
        "kernels": [kernel | {"share": kernel["ms"] / whole} for kernel in kernels[:LISTED]],
        "others_ms": sum(kernel["ms"] for kernel in kernels[LISTED:]),
    }
    print(json.dumps(value))


def make(device: str, tiny: bool) -> Step:
    """The rung ours of the ladder."""
    recipe = replace(named("shakespeare-char" if tiny else "gpt2-124m"), dropout=0.0)
    if tiny:
        recipe = replace(recipe, n_layer=1)
    job = {
        "rung": OURS,
        "device": device,
        "vocab_size": vocab_size(recipe),
        "micro_batch": 2 if tiny else 64,
        "accumulate": 1,
        "without": [],
        "compile_by": "auto",
    }
    step, failure = prepared(job, recipe)
    if failure:
        raise SystemExit(failure)
    return step


def profiled(step: Step, device: torch.device) -> list[dict[str, Any]]:
    """Each kernel's calls and milliseconds a step, the longest first; on a CPU each operator's own time."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        for _ in range(PROFILED):
            step()
        synchronize(device)
    found = []
    for event in seen.key_averages():
        # Ranges that a program names are shown on the GPU's time line too. They hold kernels that are counted already.
        if getattr(event, "is_user_annotation", False):
            continue
        if on_gpu and event.device_type != DeviceType.CUDA:
            continue
        us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if us > 0:
            found.append({"name": event.key, "calls": event.count / PROFILED, "ms": us / 1e3 / PROFILED})
    return sorted(found, key=lambda kernel: -kernel["ms"])


if __name__ == "__main__":
    main()
