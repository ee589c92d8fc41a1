"""torch.compile for the training step, tried before the first one."""

from collections.abc import Callable

import torch

from myna.errors import first_line
from myna.settings import CompileBy
from myna.train.memory import is_out_of_memory
from myna.train.step import Batch, Stepper


def compile_or_say_why(
    stepper: Stepper, batch: Batch, say: Callable[[str], None], by: CompileBy = "auto"
) -> None:
    """Compiles the step by running it once on a batch; where that fails, goes back to eager and says why.

    The weights, the optimizer and the data are left as they were.

    Args:
        by: the pieces that are compiled; see `SummedLoss.compile_step`.
    Raises:
        OutOfMemoryError: memory ran out on some rank, which running it eagerly would not mend.
    """
    stepper.loss.compile_step(by, alone=stepper.ranks.world_size == 1)
    failure, no_memory = "", False
    try:
        stepper.network.train()
        stepper.backward(batch, scale=1.0)
    except Exception as error:  # the compiler's backends raise whatever their tools raise
        no_memory = is_out_of_memory(error)
        failure = first_line(error)
    stepper.optimizer.zero_grad()
    flags = torch.tensor([float(bool(failure)), float(no_memory)], device=stepper.ranks.device)
    failed, lacking = stepper.ranks.sum_(flags).tolist()  # all ranks or none, so that they stay in step
    if lacking:
        raise torch.OutOfMemoryError(failure or "on another rank")
    if failed:
        stepper.loss.use_eager()
        say(f"torch.compile failed, training without it: {failure or 'on another rank'}")
