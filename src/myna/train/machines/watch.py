"""Ranks that keep an eye on each other, so that none waits for one that is gone.

A collective with a dead or stopped process waits for ever, or for the timeout of its library, and then names nobody.
Here every rank has a thread with a connection to rank 0, over which both sides send a sign of life each second. A
process that dies closes its connection: known at once. One that hangs falls silent: known after `timeout_s`. Rank 0
tells the others, and each ends with one line that names the rank, even where its main thread is stuck for good.

A signal outside of the loop's steps is for all ranks, too. The rank that gets it may wait in a collective for one that
prepares data, and Python answers no signal there; but its watch sees the signal and tells the others, each of which
sends the signal to itself. The first rank to leave breaks the collectives of the others.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch.distributed as dist

from myna.errors import MynaError, RankError, Stopped, first_line
from myna.signals import ignore_signals, is_interrupting, signal_behind
from myna.train.machines.ranks import Ranks

BEAT_S = 1.0
GRACE_S = 1.5  # for the main thread to end by itself, once the watch knows
ENDED = " ended: "
ANSWER_S = 3.0  # for rank 0 to say that it knows what ends this rank
LAST_WORK_S = 20.0  # for a checkpoint that is being written
STOP_S = 10.0  # for the main thread to end by itself after a signal, which may be in a collective


class Watch:
    """The watch of one rank: a context around all work that the ranks do together; alone, it does nothing.

    Raises, at its end:
        RankError: a collective failed, because another rank was lost.
        Stopped: a collective failed, because another rank got a signal.

    Args:
        timeout_s: silence after which a rank counts as hung.
    """

    def __init__(self, ranks: Ranks, timeout_s: float):
        self.ranks, self.timeout_s = ranks, timeout_s
        self.links = dict(ranks.links.by_rank)
        self.beat_s = min(BEAT_S, timeout_s / 5)
        self._last_work: Callable[[float], None] = _no_work
        self.verdict: str | None = None
        self.signal: int | None = None  # that ends all ranks, where they have not agreed on a step to stop at
        self._closing = contextlib.ExitStack()
        self._came: socket.socket | None = (
            None  # gets a byte for each signal, even while the main thread is in C
        )
        self._known = threading.Event()  # there is a verdict
        self._leaving = threading.Event()  # the main thread is on its way out
        self._heard = dict.fromkeys(self.links, time.monotonic())
        self._pending = dict.fromkeys(self.links, b"")
        self._gone: set[int] = set()  # said goodbye
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def finish_first(self, work: Callable[[float], None]) -> None:
        """Where another rank is lost, this process ends after `work`, which is given the seconds it may take."""
        self._last_work = work

    def __enter__(self) -> Self:
        if self.links:
            if threading.current_thread() is threading.main_thread():
                self._came = self._signals()
            self._thread.start()
        return self

    def _signals(self) -> socket.socket:
        reader, writer = map(self._closing.enter_context, socket.socketpair())
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._closing.callback(signal.set_wakeup_fd, before)
        return reader

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.links:
            return
        number = signal_behind(error)
        lost = None if number else self._explained(error)
        refusal = isinstance(error, MynaError | OSError) and not isinstance(error, Stopped)
        if refusal and error is not None and not self.ranks.is_main:
            error.told = self._is_told(first_line(error))  # type: ignore[attr-defined]
        self._leaving.set()
        self._closing.close()
        if number or isinstance(lost, Stopped):
            ignore_signals()
        # The thread ends a moment after the main one goes on. Were it the last to hold the run, it would free tensors
        # while Python shuts down, and torch would abort the process.
        self._last_work = _no_work
        if number:
            self._send(f"~{number}\n".encode())
        elif error is None or isinstance(error, (Stopped, SystemExit)):
            self._send(b"=\n")
        elif lost is None:
            self._send(f"!{self._name(self.ranks.rank)}{ENDED}{first_line(error)}\n".encode())
        for link in self.links.values():
            link.close()
        if lost is not None:
            raise lost from error

    def _is_told(self, line: str) -> bool:
        """Whether rank 0 prints this line: it met the same, or it heard of ours."""
        self._send(f"!{self._name(self.ranks.rank)}{ENDED}{line}\n".encode())
        self._known.wait(ANSWER_S)
        return line in (self.verdict or "")

    def _explained(self, error: BaseException | None) -> MynaError | None:
        """What a failed collective means: the watch knows by now, or will within seconds."""
        if not isinstance(error, RuntimeError) or not of_a_collective(error):
            return None
        self._known.wait(5 * self.beat_s)
        if self.signal:
            return Stopped(_stopped(self.signal))
        now = time.monotonic()
        silent = [rank for rank, heard in self._heard.items() if now - heard > 3 * self.beat_s]
        verdict = self.verdict or (
            f"{self._name(silent[0])} has fallen silent"
            if silent
            else f"a rank was lost: {first_line(error)}"
        )
        lost = RankError(self._sentence(verdict))
        lost.told = self._said_by_main(verdict)
        return lost

    def _said_by_main(self, verdict: str) -> bool:
        """Whether it is rank 0's to print: an error in a line, its own or one that it heard of."""
        return not self.ranks.is_main and ENDED in verdict

    def _sentence(self, verdict: str) -> str:
        return f"{verdict}; the last checkpoint is kept, and the same command goes on from there"

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self.ranks.world_size}"

    def _run(self) -> None:
        woke = time.monotonic()
        while not self._leaving.is_set() and self.verdict is None and self.signal is None:
            self._send(b".\n")
            try:
                links = [*(link for _, link in self._open()), *([self._came] if self._came else [])]
                ready, _, _ = select.select(links, [], [], self.beat_s)
            except (OSError, ValueError):  # the main thread is leaving, and has closed them
                continue
            if self._came in ready:
                self._signalled()
            for rank, link in self._open():
                if link in ready:
                    self._receive(rank, link)
            if ready:
                self._leaving.wait(self.beat_s / 10)  # no spinning on a link that stays ready
            now = time.monotonic()
            if now - woke > 4 * self.beat_s:  # it was we who slept: nobody is to be blamed for it
                self._heard = dict.fromkeys(self._heard, now)
            woke = now
            for rank, _ in self._open():
                if now - self._heard[rank] > self.timeout_s:
                    self._lose(f"{self._name(rank)} has not answered for {self.timeout_s:g} s: it hangs")
        if self.signal is not None or self.verdict is not None:
            self._end()

    def _open(self) -> list[tuple[int, socket.socket]]:
        return [(rank, link) for rank, link in self.links.items() if rank not in self._gone]

    def _receive(self, rank: int, link: socket.socket) -> None:
        try:
            data = link.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._lose(f"{self._name(rank)} died")
            return
        self._heard[rank] = time.monotonic()
        *lines, self._pending[rank] = (self._pending[rank] + data).split(b"\n")
        for line in lines:
            if line == b"=":
                self._gone.add(rank)
            elif line.startswith(b"!"):
                self._lose(line[1:].decode("utf-8", "replace"))
            elif line.startswith(b"~"):
                self._stop(int(line[1:]))

    def _signalled(self) -> None:
        """A signal came to this process. In the loop's steps it is a request, on which the ranks agree there."""
        with contextlib.suppress(OSError):  # the main thread is leaving, and has closed it
            for number in self._came.recv(1) if self._came else b"":
                if is_interrupting(number):
                    self._stop(number)

    def _stop(self, number: int) -> None:
        if self.signal is None and self.verdict is None and not self._leaving.is_set():
            self.signal = number
            self._send(f"~{number}\n".encode())
            self._known.set()
            main = threading.main_thread().ident
            if is_interrupting(number) and main is not None:
                signal.pthread_kill(main, number)

    def _lose(self, verdict: str) -> None:
        if self.verdict is None and self.signal is None and not self._leaving.is_set():
            self.verdict = verdict
            self._send(f"!{verdict}\n".encode())
            self._known.set()

    def _send(self, message: bytes) -> None:
        for _, link in self._open():
            with contextlib.suppress(OSError):  # who is gone is found when reading
                link.send(message)

    def _end(self) -> None:
        """Ends the process where the main thread doesn't: it waits in a collective that will never return."""
        if self.signal is not None:
            if not self._leaving.wait(STOP_S):
                print(f"myna train: {_stopped(self.signal)}", file=sys.stderr, flush=True)
                os._exit(Stopped.exit_code)
            return
        self._last_work(LAST_WORK_S)
        if not self._leaving.wait(GRACE_S):
            if not self._said_by_main(self.verdict or ""):
                print(f"myna train: {self._sentence(self.verdict or '')}", file=sys.stderr, flush=True)
            os._exit(RankError.exit_code)


def _stopped(number: int) -> str:
    what = "the same command goes on from the last checkpoint, or begins anew if there is none"
    return f"stopped by {signal.Signals(number).name}; {what}"


def _no_work(seconds: float) -> None:
    """Nothing to finish."""


def of_a_collective(error: RuntimeError) -> bool:
    """Whether it is what a collective raises where another rank is gone.

    Gloo raises plain RuntimeErrors that name its source files.
    """
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer", "Connection reset")
    )
