"""The device and the precision to compute in, for every part of Myna. settings.py lists the names that flags take."""

import contextlib
import functools
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import scaled_dot_product_attention

from myna.errors import DeviceError, first_line
from myna.progress import counted
from myna.settings import DeviceName, PrecisionName

BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})
FP16_INSTRUCTIONS = frozenset({"amx_fp16", "avx512_fp16"})
# On an Apple GPU, the first of these that works. bf16 needs no scaling of the loss.
ON_MPS: tuple[Literal["bf16", "fp16", "fp32"], ...] = ("bf16", "fp16", "fp32")


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
        DeviceError: TF32 without CUDA, bf16 on a GPU without it, or what an Apple GPU fails at (`what_fails`).
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
    if device.type == "mps":
        return _precision_on_mps(name, device)
    if name != "auto":
        return Precision(name, "asked for")
    fast = sorted(cpu_flags() & BF16_INSTRUCTIONS)
    if fast:
        return Precision("bf16", f"the processor has {' and '.join(fast)}")
    return Precision("fp32", "the processor has no instructions for bf16")


def _precision_on_mps(name: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """What PyTorch can do on an Apple GPU differs by its version, the system's and the chip: so it is tried.

    Raises:
        DeviceError: names what failed.
    """
    works = next((one for one in ON_MPS if not what_fails(one, device)), None)
    if works is None:
        raise DeviceError(
            f"--device mps: attention fails in fp32 on this machine: {what_fails('fp32', device)}; use --device cpu"
        )
    if name == "auto":
        worse = "; ".join(
            f"{one} does not: {what_fails(one, device)}" for one in ON_MPS[: ON_MPS.index(works)]
        )
        return Precision(works, f"a trial of attention works in it{f', {worse}' if worse else ''}")
    if why := what_fails(name, device):
        raise DeviceError(f"--precision {name} does not work on this machine's mps: {why}; use {works}")
    return Precision(name, "asked for")


@functools.cache
def what_fails(name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> str:
    """Why a device can't train in a precision, by a small update through attention; empty where it can.

    Autocast, attention, its gradient and fp16's scaler must run, and come near fp32 on the CPU.
    """
    expected = _small_update(Precision("fp32", ""), torch.device("cpu"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # autocast that turns itself off says so by a warning
            found = _small_update(Precision(name, ""), device)
    except Exception as error:  # backends raise whatever they meet
        return first_line(error)
    if all(torch.allclose(a, b, rtol=0.05, atol=0.02) for a, b in zip(found, expected, strict=True)):
        return ""
    return "attention or its gradient comes out wrong"


def _small_update(precision: Precision, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The result of causal attention, (B, H, T, D), and what one step of descent makes of its weight, (D, D)."""
    x = torch.sin(torch.arange(2 * 2 * 16 * 8.0)).reshape(2, 2, 16, 8).to(device)
    weight = (torch.eye(8) + 0.1).to(device).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.name == "fp16")
    with precision.autocast(device):
        result = scaled_dot_product_attention(x @ weight, x @ weight, x @ weight, is_causal=True)
    scaler.scale(result.float().square().mean()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return result.detach().float().cpu(), weight.detach().cpu()


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
        return f"cpu ({counted(torch.get_num_threads(), 'thread')})"
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
