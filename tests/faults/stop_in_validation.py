"""`myna` whose validation asks its own process to stop: at a step, before its third batch, on one rank.

Used as a program, also under torchrun, and by tests in this process. Each batch that begins is a line on stdout.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable

from myna.commands import train_evaluations
from myna.train.machines.torchrun import process_environment

BATCH_TOKENS = 512  # a few batches of even a small validation split
SIGNAL_BEFORE = 3


def stopping(validation_sums: Callable, stop_at: int, passes: list[int]) -> Callable:
    """`validation_sums` whose `stop_at`-th call sends SIGTERM to this process before its third batch.

    Args:
        passes: gets the number of batches of each call.
    """

    @functools.wraps(validation_sums)
    def wrapped(*args, before_batch, **options):
        passes.append(0)

        def before() -> None:
            if len(passes) == stop_at and passes[-1] + 1 == SIGNAL_BEFORE:
                os.kill(os.getpid(), signal.SIGTERM)
            before_batch()
            passes[-1] += 1

        return validation_sums(*args, before_batch=before, batch_tokens=BATCH_TOKENS, **options)

    return wrapped


if __name__ == "__main__":
    from myna.cli import entry

    number, rank = int(sys.argv.pop(1)), int(process_environment().get("RANK", "0"))
    passes: list[int] = []
    train_evaluations.validation_sums = stopping(
        train_evaluations.validation_sums, number if rank == 1 else 0, passes
    )
    try:
        entry()
    finally:
        print(f"rank {rank}: batches {passes}", flush=True)
