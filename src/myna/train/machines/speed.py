"""How much arithmetic a device can do: what model FLOPs utilisation (MFU) is measured against."""

import re
import time

import torch

from myna.device import synchronize
from myna.gpus import GPUS

LONG_SECONDS = 0.05  # for one product, where the next larger takes eight times as long


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """What the device could do at best, in FLOP/s, and where the figure is from: its data sheet, or measured."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for gpu in GPUS.values():
            # A laptop's GPU bears the name of a larger one.
            if re.search(rf"\b{gpu.words}\b", name) and "Laptop" not in name:
                return gpu.half * 1e12, f"data sheet, {gpu.words}"
    return measured_flops(device, dtype)


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


def _product_seconds(a: torch.Tensor) -> float:
    synchronize(a.device)
    began = time.perf_counter()
    a @ a
    synchronize(a.device)
    return time.perf_counter() - began
