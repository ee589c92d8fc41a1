"""The device and the precision to compute in, for every part of Myna. settings.py lists the names that flags take."""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from myna.errors import DeviceError
from myna.settings import DeviceName, PrecisionName

BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})
FP16_INSTRUCTIONS = frozenset({"amx_fp16", "avx512_fp16"})


def resolve_device(name: DeviceName, local_rank: int = 0) -> torch.device:
    """The device of that name; auto takes CUDA, then MPS, then the CPU.

    Args:
        local_rank: the number of this process on this machine; the process gets the GPU of that number.
    Raises:
        DeviceError: this machine does not have it.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"local rank {local_rank} has no GPU of its own: this machine has {torch.cuda.device_count()}; "
                "start as many processes as there are GPUs (--nproc-per-node)"
            )
        return torch.device("cuda", local_rank)
    if name in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    if name in ("auto", "cpu"):
        return torch.device("cpu")
    reason = (
        "this build of torch has no CUDA"
        if name == "cuda" and not torch.version.cuda
        else "no such device answers"
    )
    raise DeviceError(f"--device {name}: {reason} on this machine; use --device auto")


@dataclass(frozen=True)
class Precision:
    """What matrix products are computed in. Weights and optimizer state are fp32 in every case.

    Attributes:
        reason: why this one; text for people.
    """

    name: Literal["fp32", "tf32", "bf16", "fp16"]
    reason: str

    @property
    def dtype(self) -> torch.dtype | None:
        """What autocast casts to; None for no autocast."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which a network runs."""
        return autocast(device, self.dtype)


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision in `dtype`. None computes in the weights' dtype, also inside another autocast block."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextlib.contextmanager
def casts_kept() -> Iterator[None]:
    """Within the block, autocast casts each weight only once, however many `autocast` blocks are inside.

    The weights must not change before the end of the block.
    """
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


def resolve_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Settles `auto`, and refuses what the device can't do.

    Raises:
        DeviceError: TF32 without CUDA, or bf16 on a GPU without it.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        label = f"{torch.cuda.get_device_name(device)}, compute capability {capability[0]}.{capability[1]}"
        if name == "auto":
            return Precision("bf16" if capability >= (8, 0) else "fp16", label)
        if name in ("bf16", "tf32") and capability < (8, 0):
            raise DeviceError(f"--precision {name} needs compute capability 8.0 ({label}); use fp16 or fp32")
        return Precision(name, "asked for")
    if name == "tf32":
        raise DeviceError(
            f"--precision tf32 is a mode of CUDA GPUs, and the device is {device.type}; use fp32 or bf16"
        )
    if name != "auto":
        return Precision(name, "asked for")
    if device.type == "cpu":
        fast = sorted(cpu_flags() & BF16_INSTRUCTIONS)
        if fast:
            return Precision("bf16", f"the processor has {' and '.join(fast)}")
        return Precision("fp32", "the processor has no instructions for bf16")
    return Precision("fp32", f"the default on {device.type}")


def apply_precision(precision: Precision, device: torch.device) -> None:
    """Allows TF32 for products that stay fp32 on CUDA, unless full fp32 was asked for.

    It uses the one setter that all of torch can read. Up to torch 2.13 the compiler reads the older flags, and they
    raise an error if `torch.backends.cuda.matmul.fp32_precision` was set.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision.name == "fp32" else "high")


def device_name(device: torch.device) -> str:
    """The device's name, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def memory_bytes(device: torch.device) -> int:
    """All memory of the device, used or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished its work; call it before reading the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets, in Linux's names; empty where they can't be read."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("flags"):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def processor_name() -> str:
    """The processor's own name; its architecture where the name can't be read."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()
