"""Out of memory, said so that a person knows which flag to lower."""

import contextlib
from collections.abc import Iterator

import torch

from myna.errors import DeviceError


@contextlib.contextmanager
def explained_memory(where: str, micro_batch: int) -> Iterator[None]:
    """Turns a failed allocation of the block into a DeviceError. The run's checkpoints are untouched by it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if micro_batch > 1:
            advice = f"lower --micro-batch (it is {micro_batch}) or give --activation-checkpointing"
        else:
            advice = "give --activation-checkpointing, --shard fsdp, or a lower --sequence-length"
        raise DeviceError(f"{where}: out of memory; {advice}. The last checkpoint stands") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is how torch or Python says that an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in ("not enough memory", "can't allocate memory"))
