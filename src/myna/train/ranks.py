"""Where training runs: the process group, the device of a rank, and the precision of its matrix products."""

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from myna import errors
from myna.errors import DeviceError, MynaError, RankError, first_line
from myna.train.links import Links, meet
from myna.train.recipe import PrecisionName

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Ranks:
    """One process's place among those that train together; alone, rank 0 of 1."""

    rank: int
    world_size: int
    device: torch.device
    links: Links = field(default=Links(""), compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Adds a tensor over all ranks, in place; every rank gets the sum."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.world_size > 1:
            dist.barrier()

    def from_main(self, value: str) -> str:
        """The main rank's value of a short text, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def main_does(self, work: Callable[[], str]) -> str:
        """Has the main rank do something; every rank gets its text, or raises its error.

        Raises:
            MynaError: of the kind that the main rank met.
        """
        if self.world_size == 1:
            return work()
        answer = ""
        if self.is_main:
            try:
                answer = json.dumps({"text": work()})
            except MynaError as error:
                answer = json.dumps({"kind": type(error).__name__, "text": str(error)})
        outcome = json.loads(self.from_main(answer))
        if "kind" in outcome:
            raise getattr(errors, outcome["kind"])(outcome["text"])
        return outcome["text"]


def resolve_device(name: DeviceName, local_rank: int = 0) -> torch.device:
    """The device of that name; auto takes CUDA, then MPS, then the CPU.

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


@contextlib.contextmanager
def start_ranks(environ: Mapping[str, str], device: DeviceName, timeout_s: float = 600.0) -> Iterator[Ranks]:
    """Joins the process group that torchrun's variables describe (RANK, WORLD_SIZE, LOCAL_RANK), if there is one.

    NCCL on CUDA, gloo elsewhere.

    Raises:
        DeviceError: the device isn't there, or the other ranks can't be reached within `timeout_s`.
    """
    world_size = int(environ.get("WORLD_SIZE", "1"))
    rank = int(environ.get("RANK", "0"))
    where = resolve_device(device, int(environ.get("LOCAL_RANK", "0")))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if world_size == 1:
        yield Ranks(0, 1, where)
        return
    if where.type == "mps":
        raise DeviceError("--device mps works on one process alone; use --device cpu with torchrun")
    timeout = timedelta(seconds=timeout_s)
    try:
        store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
        links = meet(
            store, rank=rank, world_size=world_size, host=environ["MASTER_ADDR"], timeout_s=timeout_s
        )
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo",
            store=dist.PrefixStore(links.attempt, store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            device_id=where if where.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"rank {rank} of {world_size} could not join the others within {timeout_s:.0f} s: {first_line(error)}; "
            "start it with torchrun, and see that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error
    try:
        yield Ranks(rank, world_size, where, links)
    except RankError:
        raise  # a group with a lost rank can't be taken down in order: it would wait for it
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@dataclass(frozen=True)
class Precision:
    """What matrix products are computed in. Weights and optimizer state are fp32 in every case."""

    name: Literal["fp32", "tf32", "bf16", "fp16"]
    reason: str  # for people: why this one

    @property
    def dtype(self) -> torch.dtype | None:
        """What autocast casts to; None for no autocast."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the forward pass runs."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not None)


def cpu_flags() -> frozenset[str]:
    """What the processor says it can do, in Linux's names; empty where it can't be asked."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("flags"):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def processor_name() -> str:
    """The processor as it calls itself; where it can't be asked, what it is."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


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
        fast = sorted(cpu_flags() & {"amx_bf16", "avx512_bf16"})
        if fast:
            return Precision("bf16", f"the processor has {' and '.join(fast)}")
        return Precision("fp32", "the processor has no instructions for bf16")
    return Precision("fp32", f"the default on {device.type}")


def apply_precision(precision: Precision) -> None:
    """TF32 for what stays fp32 on CUDA, unless full fp32 was asked for."""
    tf32 = precision.name != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def process_environment() -> Mapping[str, str]:
    """The variables torchrun sets: the one place where they are read."""
    return os.environ
