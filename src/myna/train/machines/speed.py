"""What a device can do at best: arithmetic, which model FLOPs utilisation (MFU) is measured against, and copies."""

import time
from collections.abc import Callable

import torch

from myna.device import synchronize
from myna.gpus import gpu_named

ROUNDS = 5  # of which the best counts: whatever else the machine does must not lower a limit
COPIED_FLOATS = 1 << 26  # 268 MB: more than any cache
LONG_SECONDS = 0.05  # for one product, where the next larger takes eight times as long


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """What the device could do at best, in FLOP/s, and where the figure is from: its data sheet, or measured."""
    halves = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if halves and (gpu := gpu_named(torch.cuda.get_device_name(device))):
        return gpu.half * 1e12, f"data sheet, {gpu.words}"
    return measured_flops(device, dtype)


def best_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """The best of a few `measured_flops`."""
    return max(measured_flops(device, dtype) for _ in range(ROUNDS))


def measured_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """The best of a few large matrix products in `dtype`: FLOP/s, and what was measured.

    Of three sizes the largest that does not take long; a CPU without instructions for a dtype is very slow in it.
    """
    for size in (2048, 4096, 8192) if device.type == "cuda" else (384, 768, 1536):
        a = torch.randn(size, size, device=device, dtype=dtype)
        seconds = min(_product_seconds(a) for _ in range(2 if size < 1536 else 6))
        if seconds > LONG_SECONDS:
            break
    return 2 * size**3 / seconds, f"measured, {size}x{size} matrix product"


def copy_bytes_per_s(device: torch.device) -> float:
    """Bytes read and written a second by a large copy, the best of a few."""
    source = torch.ones(COPIED_FLOATS, device=device)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(ROUNDS))
    return 2 * source.nbytes / best


def _product_seconds(a: torch.Tensor) -> float:
    return _seconds(lambda: a @ a, a.device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began
