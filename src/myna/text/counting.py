"""How often each pre-token occurs in a corpus: all that training needs to know of it.

Texts are read once and handed to worker processes in batches; what comes back is small, since it is unique pre-tokens.
So memory is bounded by the unique pre-tokens of the corpus plus a few batches, and the sums are the same for any
number of workers.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection

from myna.text.characters import check_text
from myna.text.patterns import Pattern, blocks

BATCH_CHARACTERS = 1 << 22


def count_pretokens(
    texts: Iterable[str], pattern: Pattern, workers: int = 1, on_bytes: Callable[[int], None] | None = None
) -> dict[bytes, int]:
    """How often each pre-token occurs in the texts.

    Args:
        workers: processes; 1 counts in this one. They are spawned, so a script that asks for more needs the usual
            `if __name__ == "__main__":`.
        on_bytes: called with the bytes of UTF-8 that have been counted since the last call.
    Raises:
        TextError: a lone surrogate.
        TokenizerError: a custom pattern backtracks without bound.
    """
    counts: Counter[str] = Counter()
    for batch_counts, n_bytes in _each_batch(texts, pattern, workers):
        counts.update(batch_counts)
        if on_bytes:
            on_bytes(n_bytes)
    return {piece.encode("utf-8"): count for piece, count in counts.items()}


def _each_batch(texts: Iterable[str], pattern: Pattern, workers: int) -> Iterator[tuple[Counter[str], int]]:
    if workers <= 1:
        for batch in batches(texts, pattern):
            yield count_batch(batch, pattern)
        return
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, initializer=_end_with_pipe, initargs=(theirs,))
    with theirs, ours, executor as pool:
        waiting: deque[Future[tuple[Counter[str], int]]] = deque()
        try:
            for batch in batches(texts, pattern):
                with _ctrl_c_is_ours():
                    waiting.append(pool.submit(count_batch, batch, pattern))
                if len(waiting) > 2 * workers:  # so that reading never runs far ahead of counting
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            ours.close()
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """A process started in the block never hears of a terminal's Ctrl-C, which goes to all processes there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_pipe(pipe: Connection) -> None:
    """Makes a worker process end when the pipe is closed: its work is given up, or the parent is gone."""

    def watch() -> None:
        pipe.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def batches(texts: Iterable[str], pattern: Pattern) -> Iterator[list[str]]:
    """Texts, and blocks of long texts, in lists of about BATCH_CHARACTERS."""
    batch: list[str] = []
    size = 0
    for text in texts:
        check_text(text)
        for block in blocks(pattern, text):
            batch.append(block)
            size += len(block)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def count_batch(batch: list[str], pattern: Pattern) -> tuple[Counter[str], int]:
    """The counts of one batch, and its size in bytes of UTF-8."""
    counts: Counter[str] = Counter()
    n_bytes = 0
    for text in batch:
        counts.update(pattern.pieces(text))
        n_bytes += len(text) if text.isascii() else len(text.encode("utf-8"))
    return counts, n_bytes
