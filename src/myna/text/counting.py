"""How often each pre-token occurs in a corpus: all that training needs to know of it.

A regular expression splits 5 to 10 MB of text a second. But most of a text is repetition. So the text is first cut in
array operations, at the places where the pattern is known to cut (`Pattern.cuts`), and equal segments are counted
together, by Arrow. Then the expression splits each different segment once. Tests compare the counts with those of the
pattern itself.

Texts are read once and handed to worker processes in batches; what comes back is small, since it is unique pre-tokens.
So memory is bounded by the unique pre-tokens of the corpus, a few batches, and MOST_SEGMENTS in each process. The sums
are the same for any number of workers.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection

import numpy as np

from myna.text.characters import check_text
from myna.text.patterns import Pattern, blocks

BATCH_CHARACTERS = 1 << 22
# When a process remembers the pre-tokens of more segments than this, it forgets them all before the next batch.
MOST_SEGMENTS = 1 << 19


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
    known_segments(pattern).clear()  # merging needs the memory
    return {piece.encode("utf-8"): count for piece, count in counts.items()}


def _each_batch(texts: Iterable[str], pattern: Pattern, workers: int) -> Iterator[tuple[dict[str, int], int]]:
    if workers <= 1:
        for batch in batches(texts, pattern):
            yield count_batch(batch, pattern)
        return
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, initializer=_end_with_pipe, initargs=(theirs,))
    with theirs, ours, executor as pool:
        waiting: deque[Future[tuple[dict[str, int], int]]] = deque()
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
        for block in blocks(pattern, text) if text else ():
            batch.append(block)
            size += len(block)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def count_batch(batch: Sequence[str], pattern: Pattern) -> tuple[dict[str, int], int]:
    """The pre-tokens of one batch with their counts, and its size in bytes of UTF-8."""
    texts = [text.encode("utf-8") for text in batch]
    n_bytes = sum(map(len, texts))
    counts: defaultdict[str, int] = defaultdict(int)
    if not pattern.cuts:
        for text in batch:
            for piece in pattern.pieces(text):
                counts[piece] += 1
        return counts, n_bytes
    known = known_segments(pattern)
    if len(known) > MOST_SEGMENTS:
        known.clear()
    for segment, count in count_segments(texts, pattern):
        pieces = known.get(segment)
        if pieces is None:
            # Later garbage collections leave out a tuple of strings, but not a list. This saves a fifth of the time.
            pieces = known[segment] = tuple(pattern.pieces(segment.decode("utf-8")))
        for piece in pieces:
            counts[piece] += count
    return counts, n_bytes


@functools.cache
def known_segments(pattern: Pattern) -> dict[bytes, tuple[str, ...]]:
    """The pre-tokens of the segments that this process has met: a segment comes back in most batches."""
    return {}


def count_segments(texts: Sequence[bytes], pattern: Pattern) -> Iterable[tuple[bytes, int]]:
    """The different segments of texts, none of which is empty, and how often each occurs."""
    import pyarrow

    data = b"".join(texts)
    starts = np.concatenate(([0], segment_ends(data, np.cumsum([len(text) for text in texts]), pattern)))
    buffers = [None, pyarrow.py_buffer(starts), pyarrow.py_buffer(data)]
    segments = pyarrow.Array.from_buffers(pyarrow.large_binary(), len(starts) - 1, buffers)
    values, counts = segments.value_counts().flatten()
    return zip(values.to_pylist(), counts.to_pylist(), strict=True)


def segment_ends(data: bytes, text_ends: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Where the texts that lie end to end in `data` are cut, the last end included, ascending."""
    codes = np.frombuffer(data, dtype=np.uint8)
    cut = np.zeros(len(data), dtype=bool)
    cut[:-1] = cut_table(pattern)[codes[:-1].astype(np.uint16) << 8 | codes[1:]]
    cut[text_ends - 1] = True
    return np.flatnonzero(cut) + 1


@functools.cache
def cut_table(pattern: Pattern) -> np.ndarray:
    """(65536,) bool: whether the pattern is known to cut between two bytes, at `first << 8 | second`."""
    table = np.zeros((256, 256), dtype=bool)
    for before, after in pattern.cuts:
        table[np.ix_(list(before.encode()), list(after.encode()))] = True
    return table.ravel()
