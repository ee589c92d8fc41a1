"""Batches that ranks go through in step, so that they can agree on something before each: to stop, for one."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_rounds(batches: Iterable[T], rounds: int, before_batch: Callable[[], None] | None) -> Iterator[T]:
    """Yields a rank's batches.

    Args:
        rounds: the most batches that any rank has: the same number on every rank.
        before_batch: called once a round on every rank, so it may hold a collective: before each batch, and for a rank
            with fewer batches after its last. It may raise, which ends the evaluation.

    >>> calls = []
    >>> list(in_rounds(["a"], 3, lambda: calls.append("called"))), len(calls)
    (['a'], 3)
    """
    call = before_batch or (lambda: None)
    done = 0
    for batch in batches:
        call()
        yield batch
        done += 1
    for _ in range(done, rounds):
        call()
