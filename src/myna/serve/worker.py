"""One model at work, in a thread of its own: requests join between two steps, and leave as soon as they end.

The event loop of the server and this thread share two things: a queue of what to do, and each job's `tell`, which is
called in the loop with what is new. So the server answers while the model computes.
"""

import asyncio
import contextlib
import math
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from myna.errors import ModelError
from myna.generate.sampling import LogProbs, Sampling
from myna.generate.text import Continuation, Piece, TextEngine


@dataclass(frozen=True)
class Told:
    """What a job hears.

    Attributes:
        index: which of its texts.
        text: what is certain now.
        id, logprobs: the new token, where there is one.
        finish_reason: of this text; None while it goes on.
        prompt_logprobs: of the prompt, with the first word about a text that asked for them.
        error: the job as a whole has failed; nothing comes after.
    """

    index: int
    text: str = ""
    id: int | None = None
    logprobs: LogProbs | None = None
    finish_reason: str | None = None
    prompt_logprobs: list[LogProbs | None] | None = None
    error: str | None = None


@dataclass(eq=False)
class Job:
    """One request's texts.

    Attributes:
        prompts: ids; each is continued `n` times.
        tell: called in the thread of `loop`.
        deadline: `time.monotonic()` at which its texts are cut.
    """

    prompts: list[list[int]]
    sampling: Sampling
    n: int
    tell: Callable[[Told], None]
    loop: asyncio.AbstractEventLoop
    deadline: float
    texts: dict[Continuation, int] = field(default_factory=dict)  # those that are still written
    cancelled: bool = False

    @property
    def n_texts(self) -> int:
        """How many texts it asks for."""
        return len(self.prompts) * self.n


class Worker:
    """A model's thread.

    Args:
        most_texts: written at once.
        on_tokens: called with the number of new tokens of each step that brought any.
    """

    def __init__(
        self, engine: TextEngine, most_texts: int, on_tokens: Callable[[int], None] = lambda n: None
    ):
        self.engine, self.most_texts, self.on_tokens = engine, most_texts, on_tokens
        self._orders: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._running: dict[Continuation, Job] = {}
        self._news: list[tuple[Job, Told]] = []
        self._thread = threading.Thread(target=self._work, name="myna-model", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Jobs that have no place yet."""
        return len(self._waiting) + self._orders.qsize()

    @property
    def n_running(self) -> int:
        """Texts that are being written."""
        return len(self._running)

    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Hands a job over; it joins when there is a place for all its texts, in the order of arrival."""
        self._orders.put(("add", job))

    def cancel(self, job: Job) -> None:
        """Ends a job that nobody waits for any more: before the next step."""
        job.cancelled = True
        self._orders.put(("cancel", job))

    def cut(self) -> None:
        """Ends what is written, as it is; and what waits. The thread goes on."""
        self._orders.put(("cut", None))

    def close(self, timeout_s: float) -> None:
        """Ends what is written, and the thread."""
        self._orders.put(("close", None))
        self._thread.join(timeout_s)

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            try:
                goes_on = self._round()
            except (
                Exception
            ) as error:  # a defect of ours: all are told, and nobody waits for a thread that ended
                traceback.print_exc()
                for job in {*self._running.values(), *self._waiting}:
                    self._fail(job, error)
            self._tell_news()

    def _round(self) -> bool:
        """Orders, places, a step. False at the end."""
        if not self._take_orders():
            return False
        self._cut_late()
        self._seat()
        if self._running:
            self._step()
        return True

    def _tell_news(self) -> None:
        """Hands what a round brought to the event loops, to each in one go: waking a loop costs more than a token."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Told]]] = {}
        for job, told in self._news:
            by_loop.setdefault(job.loop, []).append((job, told))
        self._news = []
        for loop, news in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_tell_all, news)

    def _take_orders(self) -> bool:
        """Does what was asked; waits for something to do where there is nothing. False at the end."""
        wait = not self._running and not self._waiting
        while wait or not self._orders.empty():
            order, job = self._orders.get()
            wait = False
            if job is None:
                for running in {*self._running.values(), *self._waiting}:
                    self._end(running)
                if order == "close":
                    return False
                continue
            if order == "add" and not job.cancelled:
                self._waiting.append(job)
            elif order == "cancel":
                self._drop(job)
        return True

    def _seat(self) -> None:
        while self._waiting and len(self._running) + self._waiting[0].n_texts <= self.most_texts:
            job = self._waiting.popleft()
            try:
                for first, prompt in enumerate(job.prompts):
                    for n, text in enumerate(self.engine.add(prompt, job.sampling, count=job.n)):
                        index = first * job.n + n
                        if text.finish_reason:
                            self._note(job, Told(index, finish_reason=text.finish_reason))
                        else:
                            job.texts[text] = index
                            self._running[text] = job
            except Exception as error:
                self._fail(job, error)

    def _step(self) -> None:
        try:
            pieces = self.engine.step()
        except Exception as error:  # out of memory, say: the engine has emptied itself, and goes on
            traceback.print_exc()
            for job in set(self._running.values()):
                self._fail(job, error)
            return
        self.on_tokens(sum(piece.new.id is not None for piece in pieces))
        for piece in pieces:
            self._tell(piece)

    def _tell(self, piece: Piece) -> None:
        text = piece.continuation
        job = self._running[text]
        slot = text.slot
        is_first = slot.n_new == 1 or (not slot.n_new and text.finish_reason is not None)
        error = piece.new.error
        if is_first and not all(map(_is_finite, slot.prompt_logprobs)):
            error = ModelError(
                "a log-probability of the prompt is not finite: the model's weights are damaged; serve an earlier "
                "checkpoint or another model"
            )
        if error:
            self._fail(job, error)
            return
        told = Told(
            job.texts[text],
            piece.text,
            piece.new.id,
            piece.new.logprobs,
            text.finish_reason,
            slot.prompt_logprobs if is_first and slot.prompt_logprobs else None,
        )
        if text.finish_reason:
            del self._running[text], job.texts[text]
        self._note(job, told)

    def _note(self, job: Job, told: Told) -> None:
        self._news.append((job, told))

    def _cut_late(self) -> None:
        now = time.monotonic()
        for job in {*self._running.values(), *self._waiting}:
            if now >= job.deadline:
                self._end(job)

    def _end(self, job: Job) -> None:
        """Its texts end as they are, as if no more had been asked for."""
        if job in self._waiting:
            self._note(job, Told(0, error="the server had no place for this request in time; try again"))
        for text, index in list(job.texts.items()):
            held = self.engine.remove(text)
            self._note(job, Told(index, held, finish_reason="length"))
        self._drop(job)

    def _fail(self, job: Job, error: Exception) -> None:
        self._drop(job)
        self._note(job, Told(0, error=f"{type(error).__name__}: {error}"))

    def _drop(self, job: Job) -> None:
        for text in list(job.texts):
            self.engine.remove(text)
            del self._running[text], job.texts[text]
        if job in self._waiting:
            self._waiting.remove(job)


def _tell_all(news: list[tuple[Job, Told]]) -> None:
    for job, told in news:
        job.tell(told)


def _is_finite(logs: LogProbs | None) -> bool:
    return logs is None or all(map(math.isfinite, (logs.chosen, *(value for _, value in logs.likeliest))))
