"""SIGTERM and Ctrl-C as a request that the loop answers between two steps."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from myna.errors import Stopped


class StopRequest:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal_name is not None


# torchrun passes a terminal's Ctrl-C on to its ranks, which had it already: a person's second one comes later.
SECOND_AFTER_S = 1.0


@contextlib.contextmanager
def stop_on_signals(one_of_many: bool = False) -> Iterator[StopRequest]:
    """Within the block, the first SIGTERM or SIGINT sets the request; a SIGINT a second later interrupts at once.

    Signals can only be caught in a process's main thread; elsewhere the request is never set.

    Args:
        one_of_many: this is one rank of several. After Stopped it ignores both signals until its end: torchrun
            sends SIGTERM to those still ending when it sees the first of them gone.
    """
    request = StopRequest()
    first_s = 0.0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal first_s
        if not request.asked():
            first_s = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - first_s > SECOND_AFTER_S:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    ending = False
    try:
        yield request
    except Stopped:
        ending = one_of_many
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)
