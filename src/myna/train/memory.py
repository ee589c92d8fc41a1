"""Out of memory, said so that a person knows what to try, and in which order."""

import contextlib
from collections.abc import Callable, Iterator

import torch

from myna.device import Precision, memory_bytes, resolve_precision
from myna.errors import DeviceError, ModelError
from myna.model.network import Network
from myna.train.machines.ranks import Ranks
from myna.train.optimizers.optimizer import Optimizer
from myna.train.recipe import Recipe


@contextlib.contextmanager
def explained_memory(where: Callable[[], str], advice: str, kept: Callable[[], str]) -> Iterator[None]:
    """Turns a failed allocation of the block into a DeviceError. The run's checkpoints are untouched by it.

    Args:
        where: says what was under way; asked when memory has run out.
        advice: see `memory_advice`.
        kept: what the run keeps, see `kept_words`; asked when memory has run out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(f"{where()}: out of memory; {advice}. {kept().capitalize()}") from error


def memory_advice(
    recipe: Recipe,
    ranks: Ranks,
    precision: Precision,
    *,
    micro_batch: int,
    recomputes: bool,
    sharded: bool,
) -> str:
    """What takes less memory, in the order to try it: what changes no result, then what costs time, then the rest.

    Args:
        micro_batch: sequences computed at once.
        recomputes, sharded: whether activations are computed again, and the network is spread over ranks.
    """
    kind, several = ranks.device.type, ranks.world_size > 1
    fast = resolve_precision("auto", ranks.device).name
    smaller = max((n for n in range(1, micro_batch) if micro_batch % n == 0), default=0)
    ways = {
        f"--micro-batch {smaller} (it is {micro_batch})": smaller > 0,
        f"--precision {fast} (it is {precision.name})": precision.name in ("fp32", "tf32")
        and fast in ("bf16", "fp16"),
        "--activation-checkpointing (a third more work)": not recomputes,
        "--shard fsdp": several and not sharded,
        "more GPUs with --shard fsdp": kind == "cuda" and not several,
        "fewer processes, since all share this machine's memory": kind == "cpu" and several,
        "--average-decay 0, since the average is a copy of the weights": recipe.average_decay > 0,
        f"a --sequence-length below {recipe.sequence_length}": True,
        "a smaller model": True,
    }
    listed = "; ".join(way for way, helps in ways.items() if helps)
    return f"try in this order (--override lets a run that exists change its recipe): {listed}"


def require_room(
    network: Network, optimizer: Optimizer, device: torch.device, *, sharded: bool = False
) -> None:
    """Refuses a network that the device cannot train with any batch, before memory is asked for.

    Args:
        network, optimizer: without memory, as `build_without_memory` makes them.
    Raises:
        ModelError: fp32 weights, gradients and the optimizer's state (where sharded: the weights alone) are more than
            all its memory.
    """
    needs, has = kept_bytes(network, optimizer, sharded=sharded), memory_bytes(device)
    if needs > has:
        what = "its weights alone" if sharded else "weights, gradients and the optimizer's state"
        raise ModelError(
            f"a model of {network.n_parameters():,} parameters does not fit the memory of {device}: {what} take "
            f"{needs / 1e9:,.1f} GB, and there are {has / 1e9:,.1f}; take fewer layers, or lower --n-embd"
        )


def kept_bytes(network: Network, optimizer: Optimizer, *, sharded: bool = False) -> int:
    """What training holds from step to step: fp32 weights, gradients, the optimizer's state; sharded, the weights."""
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    return weights if sharded else 2 * weights + optimizer.memory_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is how torch, a library below it, or Python says that an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
