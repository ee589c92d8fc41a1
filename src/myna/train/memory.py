"""Out of memory, said so that a person knows which flag to lower."""

import contextlib
import os
from collections.abc import Iterator

import torch

from myna.errors import DeviceError, ModelError
from myna.model.config import GPTConfig


@contextlib.contextmanager
def explained_memory(where: str, micro_batch: int) -> Iterator[None]:
    """Turns a failed allocation of the block into a DeviceError. The run's checkpoints are untouched by it."""
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
        raise DeviceError(f"{where}: out of memory; {advice}. The last checkpoint stands") from error


def require_room(config: GPTConfig, device: torch.device, *, sharded: bool = False) -> None:
    """Refuses a network that the device cannot train with any batch, before memory is asked for.

    Raises:
        ModelError: fp32 weights, gradients and Adam's two moments (where sharded: the weights alone) are more than
            all its memory.
    """
    if device.type == "cuda":
        has = torch.cuda.get_device_properties(device).total_memory
    else:
        has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needs = 4 * config.n_parameters * (1 if sharded else 4)
    if needs > has:
        what = "its weights alone" if sharded else "weights, gradients and Adam's moments"
        raise ModelError(
            f"a model of {config.n_parameters:,} parameters does not fit the memory of {device}: {what} take "
            f"{needs / 1e9:,.1f} GB, and there are {has / 1e9:,.1f}; take fewer layers, or lower --n-embd"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is how torch, a library below it, or Python says that an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
