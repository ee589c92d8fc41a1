"""Ways to compute causal attention, and what each takes, forward and backward: one job of a worker process."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.bench.lecture import four_operations, future_of
from myna.bench.memory import peak_memory_bytes
from myna.bench.online_softmax import OnlineSoftmax
from myna.device import resolve_device, resolve_precision, synchronize
from myna.model.attention import attention, in_blocks, join_heads, split_heads
from myna.train.machines.allocator import keep_freed_memory
from myna.train.memory import is_out_of_memory

WARM_UP_LENGTH = 64  # computed first, so that what a process takes once is not counted

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def way_of(name: str, length: int, device: torch.device) -> Way:
    """A way by its name: q, k and v (B, H, T, D) to (B, T, C), for sequences of that length."""
    if name == "four-operations":
        future = future_of(length, device)
        return lambda q, k, v: join_heads(four_operations(q, k, v, future))
    if name == "pytorch":
        return lambda q, k, v: join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))
    if name == "online-softmax":
        return lambda q, k, v: join_heads(OnlineSoftmax.apply(q, k, v))
    return attention


def measure_way(job: dict[str, Any], on_length: Callable[[int], None]) -> dict[str, Any]:
    """One way at all lengths: first the memory of a pass, then the time.

    Memory goes from the shortest on, so that the process's peak is always the newest length's. The best time counts,
    since other programs only add to it.

    Args:
        job: `way`, `lengths`, `tokens`, `n_head`, `n_embd`, `steps`, `device`, `precision`.
        on_length: told of each length that is done.
    """
    device = resolve_device(job["device"])
    dtype = resolve_precision(job["precision"], device).dtype or torch.float32
    run_once(job, WARM_UP_LENGTH, 1, device, dtype)
    before = peak_memory_bytes(device)
    records = [memory_of_a_pass(job, length, device, dtype, before) for length in job["lengths"]]
    if device.type == "cpu":
        keep_freed_memory()  # as training does: so the clock sees arithmetic, and not the system's pages
    for record in records:
        if "skipped" not in record:
            passes = range(1 + job["steps"])
            seconds = [run_once(job, record["length"], record["sequences"], device, dtype) for _ in passes][
                1:
            ]
            record |= {"ms": 1e3 * min(seconds), "step_seconds": seconds}
        on_length(record["length"])
    return {
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "is_pytorchs": job["way"] == "ours" and not in_blocks(device, dtype),
        "difference": difference(job, device, dtype),
        "lengths": records,
    }


def memory_of_a_pass(
    job: dict[str, Any], length: int, device: torch.device, dtype: torch.dtype, before: int
) -> dict[str, Any]:
    """A length's record with the most that was held above `before`; `skipped` where that is too much."""
    record: dict[str, Any] = {"length": length, "sequences": max(1, job["tokens"] // length)}
    try:
        run_once(job, length, record["sequences"], device, dtype)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return record | {"skipped": "out of memory"}
    return record | {"memory_bytes": max(0, peak_memory_bytes(device) - before)}


def run_once(
    job: dict[str, Any], length: int, sequences: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Seconds of a forward and a backward pass, from queries, keys and values that stand side by side."""
    way = way_of(job["way"], length, device)
    qkv = drawn(sequences, length, job["n_embd"], device, dtype).requires_grad_()
    grad = torch.ones(sequences, length, job["n_embd"], device=device, dtype=dtype)
    synchronize(device)
    began = time.perf_counter()
    way(*split_heads(qkv, job["n_head"])).backward(grad)
    synchronize(device)
    return time.perf_counter() - began


def difference(job: dict[str, Any], device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference of a result from the four operations in fp32, at the shortest length."""
    length = min(job["lengths"])
    qkv = drawn(1, length, job["n_embd"], device, dtype)
    with torch.enable_grad():
        found = way_of(job["way"], length, device)(*split_heads(qkv.requires_grad_(), job["n_head"]))
    exact = way_of("four-operations", length, device)(*split_heads(qkv.detach().float(), job["n_head"]))
    return float((found.detach().float() - exact).abs().max())


def drawn(sequences: int, length: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(B, T, 3C), the same numbers on every device."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(sequences, length, 3 * width, generator=generator).to(device, dtype)
