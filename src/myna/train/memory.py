"""Out of memory, said so that a person knows which flag to lower."""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch

from myna.errors import DeviceError, ModelError
from myna.model.network import Network
from myna.train.optimizers.optimizer import Optimizer


@contextlib.contextmanager
def explained_memory(where: Callable[[], str], micro_batch: int) -> Iterator[None]:
    """Turns a failed allocation of the block into a DeviceError. The run's checkpoints are untouched by it.

    Args:
        where: says what was under way; asked when memory has run out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if micro_batch > 1:
            advice = (
                f"lower --micro-batch (it is {micro_batch}; --override lets a run that exists change it) "
                "or give --activation-checkpointing"
            )
        else:
            advice = "give --activation-checkpointing, --shard fsdp, or a lower --sequence-length"
        raise DeviceError(f"{where()}: out of memory; {advice}. The last checkpoint stands") from error


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
    if device.type == "cuda":
        has = torch.cuda.get_device_properties(device).total_memory
    else:
        has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    needs = weights if sharded else 2 * weights + optimizer.memory_bytes()
    if needs > has:
        what = "its weights alone" if sharded else "weights, gradients and the optimizer's state"
        raise ModelError(
            f"a model of {network.n_parameters():,} parameters does not fit the memory of {device}: {what} take "
            f"{needs / 1e9:,.1f} GB, and there are {has / 1e9:,.1f}; take fewer layers, or lower --n-embd"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is how torch, a library below it, or Python says that an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
