"""Python's garbage collector at times of our choosing, so that it stalls no step and no rank waits for another's."""

import contextlib
import gc
from collections.abc import Iterator

EVERY_STEPS = 500


@contextlib.contextmanager
def collected_at_pauses() -> Iterator[None]:
    """Within the block nothing is collected but by `collect`. What is alive at its start is not looked at again."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def collect() -> None:
    """A pause: what became garbage in cycles since the last one goes. Milliseconds."""
    gc.collect()
