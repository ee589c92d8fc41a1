"""SIGTERM and Ctrl-C as a request that the loop answers between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal_name is not None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block, the first SIGTERM or SIGINT sets the request; a second SIGINT interrupts at once.

    Signals can only be caught in a process's main thread; elsewhere the request is never set.
    """
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.asked() and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
