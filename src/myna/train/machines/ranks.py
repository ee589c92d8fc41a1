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
from myna.errors import DeviceError, RankError, first_line, from_record, to_record
from myna.settings import DeviceName
from myna.signals import answering, signal_behind
from myna.train.machines.links import Links, meet
from myna.train.machines.torchrun import once_a_machine, read_place


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

    def from_rank(self, rank: int, tensor: Tensor) -> Tensor:
        """That rank's values of a contiguous tensor on every rank, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=rank)
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
            Exception: the one that the main rank met; on the others of its kind, and told there already.
        """
        if self.world_size == 1:
            return work()
        answer = ""
        if self.is_main:
            try:
                answer = json.dumps({"text": work()})
            except Exception as error:
                self.from_main(json.dumps(to_record(error)))
                raise
        outcome = json.loads(self.from_main(answer))
        if "kind" in outcome:
            met = from_record(outcome, "rank 0")
            met.told = True  # type: ignore[attr-defined]
            raise met
        return outcome["text"]


@contextlib.contextmanager
def start_ranks(environ: Mapping[str, str], device: DeviceName, timeout_s: float = 600.0) -> Iterator[Ranks]:
    """Joins the process group that torchrun's variables describe, if there is one.

    NCCL on CUDA, gloo elsewhere.

    Raises:
        UsageError: a variable is missing or wrong, see `read_place`.
        DeviceError: the device isn't there, or the other ranks can't be reached within `timeout_s`.
    """
    place = read_place(environ)
    rank, world_size = place.rank, place.world_size
    with once_a_machine(environ):
        resolve_device(device)  # what the first rank lacks, all lack
    where = resolve_device(device, place.local_rank)
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
            with _library_silent(environ):
                store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
                return store, meet(
                    store, rank=rank, world_size=world_size, host=place.host, timeout_s=timeout_s
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
        why = first_line(error).rstrip(".")
        raise DeviceError(
            f"rank {rank} of {world_size} could not join the others within {timeout_s:.0f} s: {why}; "
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


@contextlib.contextmanager
def _library_silent(environ: Mapping[str, str]) -> Iterator[None]:
    """Within the block, nothing written to this process's stderr is seen, unless TORCH_CPP_LOG_LEVEL asks for it.

    Before it raises, torch's C++ prints what it met once a second, and at last its stack: pages above our one line.
    """
    if "TORCH_CPP_LOG_LEVEL" in environ:
        yield
        return
    with contextlib.ExitStack() as silent, open(os.devnull, "wb") as nowhere:
        with contextlib.suppress(OSError):  # it may be closed
            seen = os.dup(2)
            silent.callback(os.close, seen)
            silent.callback(os.dup2, seen, 2)
            os.dup2(nowhere.fileno(), 2)
        yield
