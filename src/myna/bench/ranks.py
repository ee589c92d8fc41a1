"""Several ranks: what they train in a second together, and what sharing their gradients takes of a step.

Each step is made in two ways, in turn and in one run: as `myna train` makes it, where DDP adds the gradients up over
the ranks during the backward pass, and within DDP's `no_sync`, where each rank keeps its own. Both wait for the slowest
rank at the end, since the loss is summed. So the difference is the part of the communication that the backward pass
does not hide.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from myna.bench.ladder import OURS, WARM_UP_STEPS
from myna.bench.limits import flops_per_token, machine_of
from myna.bench.measure import Plan, Watcher, about, job_of, run_job
from myna.bench.memory import peak_memory_bytes
from myna.bench.rungs import OurStep, our_step
from myna.bench.worker import batches_of
from myna.device import synchronize
from myna.errors import DeviceError
from myna.train.build import new_network
from myna.train.machines.pauses import garbage_collected_at_pauses
from myna.train.machines.ranks import Ranks
from myna.train.memory import is_out_of_memory

WAYS = ("together", "apart")  # with the sum of the gradients over the ranks, and without


def measure_ranks(plan: Plan, ranks: Ranks, watcher: Watcher) -> dict[str, Any]:
    """Measures both ways on all ranks; the whole result, as ranks.json has it, the same on every rank.

    Raises:
        DeviceError: memory ran out on this rank.
    """
    job = job_of(plan, ranks.device.type)
    if plan.micro_batch == "auto":
        # In a process of its own, as the ladder does: what was tried leaves nothing in this one's memory.
        fit = job | {"task": "fit", "rung": OURS}
        job["micro_batch"] = max(1, int(ranks.main_does(lambda: str(run_job(fit)["micro_batch"]))))
    machine = machine_of(ranks.device)
    try:
        step, failure = step_of(plan, job, ranks)
        with garbage_collected_at_pauses():
            seconds = timed_in_turn(step, ranks, WARM_UP_STEPS + 1 + plan.steps, watcher)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"rank {ranks.rank} of {ranks.world_size}: out of memory with {job['micro_batch']} x "
            f"{plan.recipe.sequence_length} tokens; give a lower --micro-batch"
        ) from error
    most = torch.tensor([peak_memory_bytes(ranks.device)], dtype=torch.int64, device=ranks.device)
    found = about(plan, machine, job) | {
        "ranks": ranks.world_size,
        "compiled": step.compiled,
        "compiler_failure": failure,
        "peak_memory_bytes_by_rank": gathered(most, ranks),
    }
    return found | compared(seconds, found, flops_per_token(plan.recipe, plan.vocab_size))


def step_of(plan: Plan, job: dict[str, Any], ranks: Ranks) -> tuple[OurStep, str]:
    """This rank's step: the same weights on every rank, and batches of its own."""
    network = new_network(plan.recipe, plan.vocab_size, ranks.device)
    of_rank = replace(plan.recipe, seed=plan.recipe.seed + ranks.rank)
    batches = batches_of(job, of_rank, ranks.device)
    return our_step(network, plan.recipe, batches, ranks=ranks, compile_by=plan.compile_by)


def timed_in_turn(step: OurStep, ranks: Ranks, count: int, watcher: Watcher) -> dict[str, list[float]]:
    """Seconds of so many steps of each way, those that warm up left out. A step is as long as its slowest rank's."""
    module = step.stepper.module
    assert isinstance(module, DistributedDataParallel)
    ways: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "together": contextlib.nullcontext,
        "apart": module.no_sync,
    }
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(count):
        # Which way comes first changes, so that neither always follows the other.
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            ranks.barrier()
            synchronize(ranks.device)
            began = time.perf_counter()
            with ways[way]():
                step()
            synchronize(ranks.device)
            taken = torch.tensor([time.perf_counter() - began], dtype=torch.float64, device=ranks.device)
            seconds[way].append(max(gathered(taken, ranks)))
            watcher.step()
    return {way: taken[WARM_UP_STEPS + 1 :] for way, taken in seconds.items()}


def gathered(value: torch.Tensor, ranks: Ranks) -> list[Any]:
    """A number of each rank, on every rank."""
    slots = torch.zeros(ranks.world_size, dtype=value.dtype, device=value.device)
    slots[ranks.rank] = value[0]
    return ranks.sum_(slots).tolist()


def compared(
    seconds: Mapping[str, Sequence[float]], found: dict[str, Any], flops_each_token: float
) -> dict[str, Any]:
    """Both ways by the medians of their steps, and what communication takes of a step.

    >>> found = {"tokens_per_step": 8, "ranks": 2, "machine": {"matrix_flops": 4.0}}
    >>> both = compared({"together": [2.0], "apart": [1.0]}, found, 0.5)
    >>> both["together"]["tokens_per_second"], both["apart"]["share_of_limit"], both["communication_share"]
    (8.0, 1.0, 0.5)
    """
    result: dict[str, Any] = {}
    for way in WAYS:
        median = statistics.median(seconds[way])
        rate = found["tokens_per_step"] * found["ranks"] / median
        result[way] = {
            "ms_per_step": 1e3 * median,
            "tokens_per_second": rate,
            "tokens_per_second_of_a_rank": rate / found["ranks"],
            "share_of_limit": rate * flops_each_token / (found["ranks"] * found["machine"]["matrix_flops"]),
            "step_seconds": list(seconds[way]),
        }
    together, apart = (result[way]["ms_per_step"] for way in WAYS)
    return result | {
        "communication_ms": together - apart,
        "communication_share": (together - apart) / together,
    }
