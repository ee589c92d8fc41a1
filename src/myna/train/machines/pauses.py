"""Python's garbage collector at times of our choosing, so that it stalls no step and no rank waits for another's."""

import contextlib
import gc
from collections.abc import Iterator

COLLECT_EVERY_STEPS = 500


@contextlib.contextmanager
def garbage_collected_at_pauses() -> Iterator[None]:
    """Within the block, only `collect_garbage` collects. It doesn't look at what is alive at the block's start."""
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


def collect_garbage() -> None:
    """A pause: frees the cycles that became garbage since the last pause. It takes milliseconds."""
    gc.collect()
