"""The processes that train together: their group, and each one's place and device."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from myna.device import resolve_device
from myna.errors import DeviceError, MynaError, RankError, first_line, from_record, to_record
from myna.settings import DeviceName
from myna.signals import answering, signal_behind
from myna.train.machines.links import Links, meet


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
            MynaError, OSError: of the kind that the main rank met.
        """
        if self.world_size == 1:
            return work()
        answer = ""
        if self.is_main:
            try:
                answer = json.dumps({"text": work()})
            except (MynaError, OSError) as error:
                answer = json.dumps(to_record(error))
        outcome = json.loads(self.from_main(answer))
        if "kind" in outcome:
            raise from_record(outcome, "rank 0")
        return outcome["text"]


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

        def join() -> tuple[Store, Links]:
            store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
            return store, meet(
                store, rank=rank, world_size=world_size, host=environ["MASTER_ADDR"], timeout_s=timeout_s
            )

        store, links = answering(join)
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
    except BaseException as error:
        # A group with a lost rank can't be taken down in order: it would wait for it.
        if not isinstance(error, RankError) and signal_behind(error) is None:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def process_environment() -> Mapping[str, str]:
    """The variables torchrun sets: the one place where they are read."""
    return os.environ
