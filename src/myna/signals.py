"""SIGTERM, SIGHUP and Ctrl-C. A command ends where it stands; training's loop is asked, and answers between two steps.

The command line raises `Interrupted` in the main thread, between two bytecodes of Python. So work answers after the
batch, file or piece that it is in, provided that no single call into C takes long (see `answering`), and that no thread
is waited for which goes on to the end of the work. Blocks of `with` and `finally` run as for any error.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

from myna.errors import Stopped

if sys.platform == "win32":
    # Every command comes by here first. Without this line it would end in a traceback: there is no SIGHUP.
    print(
        "myna: Windows lacks the signals and file locks that runs need; use WSL2 (docs/machines.md)",
        file=sys.stderr,
    )
    sys.exit(2)

T = TypeVar("T")

# torchrun passes a terminal's Ctrl-C on to its ranks, which had it already: a person's second one comes later.
SECOND_AFTER_S = 1.0
AGAIN_S = 0.01
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """A signal ended the work of this process. Like Ctrl-C's own exception, no `except Exception` takes it.

    Attributes:
        same_command: what the same command would do, for the message; empty where the work did not say it.
    """

    same_command = ""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def signal_behind(error: BaseException | None) -> int | None:
    """The signal that an error comes from; None for other errors."""
    for one in (error, None if error is None else error.__cause__):
        if isinstance(one, KeyboardInterrupt):
            return one.number if isinstance(one, Interrupted) else signal.SIGINT
    return None


def same_command_behind(error: BaseException) -> str:
    """What an interrupted work said that the same command would do; empty where it did not say it."""
    return error.same_command if isinstance(error, Interrupted) else ""


class Interrupting:
    """A handler that raises at the first signal. Later ones don't disturb the ending; a later Ctrl-C does."""

    def __init__(self) -> None:
        self._first_s: float | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_s is None or (number == signal.SIGINT and now - self._first_s > SECOND_AFTER_S):
            self._first_s = now
            raise Interrupted(number)

    def again(self, number: int) -> None:
        """Raises once more, from outside: the first was raised where Python drops errors, as in `__del__`."""
        self._first_s = None
        main = threading.main_thread().ident
        timer = threading.Timer(AGAIN_S, signal.pthread_kill, (main, number))
        timer.daemon = True
        timer.start()


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within the block, SIGTERM, SIGHUP and SIGINT raise `Interrupted` in the main thread.

    A signal that is ignored stays so: nohup's SIGHUP. A handler of the surrounding program's own for SIGINT stays, too.
    Signals can only be caught in a process's main thread; elsewhere the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, hook = Interrupting(), sys.unraisablehook

    def dropped(what: Any) -> None:
        if isinstance(what.exc_value, Interrupted):
            handler.again(what.exc_value.number)
        else:
            hook(what)

    before = {number: signal.getsignal(number) for number in ENDING}
    for number, usual in before.items():
        own_ctrl_c = number == signal.SIGINT and usual is not signal.default_int_handler
        if usual not in (None, signal.SIG_IGN) and not own_ctrl_c:
            signal.signal(number, handler)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, usual in before.items():
            if signal.getsignal(number) is handler:  # else a rank ignores it now, see `ignore_signals`
                signal.signal(number, usual)


def answering(call: Callable[[], T]) -> T:
    """Makes a call into a library that may not come back to Python for long. Signals are answered meanwhile.

    The call runs in a thread of its own. After a signal it is left to itself, and ends with the process.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # for the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="answering", daemon=True).start()
    return outcome.result()


def is_interrupting(number: int) -> bool:
    """Whether that signal would raise `Interrupted` now. May be asked in any thread."""
    return isinstance(signal.getsignal(number), Interrupting)


def ignore_signals() -> None:
    """For a rank on its way out: torchrun sends SIGTERM to those still ending when it sees the first of them gone."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal_name is not None


@contextlib.contextmanager
def stop_on_signals(one_of_many: bool = False) -> Iterator[StopRequest]:
    """Within the block, the first signal sets the request; a SIGINT a second later interrupts at once.

    Signals can only be caught in a process's main thread; elsewhere the request is never set.

    Args:
        one_of_many: this is one rank of several. After Stopped it ignores the signals until its end.
    """
    request = StopRequest()
    first_s = 0.0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal first_s
        if not request.asked():
            first_s = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - first_s > SECOND_AFTER_S:
            raise Interrupted(number)
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    nohup = signal.getsignal(signal.SIGHUP) in (None, signal.SIG_IGN)
    before = {n: signal.signal(n, note) for n in ENDING if not (nohup and n == signal.SIGHUP)}
    ending = False
    try:
        yield request
    except Stopped:
        ending = one_of_many
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)
