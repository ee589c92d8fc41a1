"""Packs conversations into windows. Several may share a window, but each of them sees only itself.

A window holds T targets. A conversation of n ids is n - 1 inputs and n - 1 targets, of which only the scored ids count;
the others are `IGNORE`. Its positions begin at 0. What is left of a window is padding, whose targets are ignored too.

Which conversations share a window depends on the data, T and the seed alone. The longest conversation is packed first,
and the seed draws the order of equally long ones. Each goes into the window with the least room that is enough ("best
fit"). So every conversation is there once an epoch, and nearly every position is used. In shuffled order, each epoch
visits the windows in another order, as it does for text (`batches.py`).

The ids after the last scored id teach nothing and are left out. A conversation longer than a window is cut after the
last answer that fits. If not even the first answer fits, the whole conversation is left out. `Conversations` counts the
cut ones (`n_cut`) and those left out (`n_left_out`).
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from myna.data.batches import Batch, windows_of_samples
from myna.data.split import SCAN_IDS, Split
from myna.errors import DataError
from myna.settings import Order

# A target that no loss counts; the same as `myna.model.loss.IGNORE`.
IGNORE = -100


@dataclass(frozen=True)
class Conversations:
    """The conversations of a split as they fit windows of T targets, in the order of the stream.

    Attributes:
        starts: (N,) int64, where each begins in the stream.
        lengths: (N,) int64, ids of each that are used, at most T + 1.
        scored: (N,) int64, scored ids among them.
        n_cut: how many lost their last turns.
        n_left_out: how many have no answer that fits, and are not among the N.
    """

    starts: np.ndarray
    lengths: np.ndarray
    scored: np.ndarray
    n_cut: int
    n_left_out: int

    def first(self, limit: int) -> "Conversations":
        """The first conversations: as many as fit into `limit` scored ids in all, but at least one.

        `n_cut` and `n_left_out` remain those of the whole split.
        """
        count = max(1, int(np.searchsorted(np.cumsum(self.scored), limit, side="right")))
        return replace(
            self, starts=self.starts[:count], lengths=self.lengths[:count], scored=self.scored[:count]
        )


def find_conversations(split: Split, eot: int, sequence_length: int) -> Conversations:
    """Looks for the conversations of a split, in one pass over it.

    Args:
        eot: the id that begins each.
    """
    starts, answer_ends, scored_before = _scan(split, eot)
    conversation_ends = np.append(starts, split.n_tokens)[1:]
    # The last answer of each conversation, and the last one that also fits the window.
    last_ends = _last_at_most(answer_ends, conversation_ends)
    used_ends = _last_at_most(answer_ends, np.minimum(conversation_ends, starts + sequence_length + 1))
    fits = used_ends > starts
    n_cut, n_left_out = int((fits & (last_ends > used_ends)).sum()), int((~fits).sum())
    starts, used_ends = starts[fits], used_ends[fits]
    return Conversations(
        starts, used_ends - starts, scored_before[used_ends] - scored_before[starts], n_cut, n_left_out
    )


def _scan(split: Split, eot: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pass over a split.

    Returns:
        where conversations begin, in order; where answers end, in order (the first entry is a 0, which is no answer's
        end); how many ids before each place are scored, (n_tokens + 1,). All are int64.
    """
    assert split.scored is not None
    zero = np.zeros(1, dtype=np.int64)
    starts, answer_ends, scored_before = [zero[:0]], [zero], [zero]
    for first in range(0, split.n_tokens, SCAN_IDS):
        count = min(SCAN_IDS, split.n_tokens - first)
        starts.append(first + np.flatnonzero(split.read(first, count) == eot))
        # Read one flag more than the chunk has, to see whether an answer ends with the chunk's last id. At the end of
        # the stream there is no further flag; a 0 takes its place.
        with_next = np.zeros(count + 1, dtype=np.int64)
        available = min(count + 1, split.n_tokens - first)
        with_next[:available] = split.scored.read(first, available)
        answer_ends.append(first + np.flatnonzero(np.diff(with_next) < 0) + 1)
        scored_before.append(scored_before[-1][-1] + np.cumsum(with_next[:count]))
    return np.concatenate(starts), np.concatenate(answer_ends), np.concatenate(scored_before)


def _last_at_most(places: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """For each limit, the last of the ordered `places` that is not beyond it. No limit may be before the first."""
    return places[np.searchsorted(places, limits, side="right") - 1]


def pack(lengths: np.ndarray, room: int, seed: int) -> list[list[int]]:
    """Which pieces share a window.

    Args:
        lengths: (N,) of the pieces, each at most `room`.
        seed: draws the order of pieces that are equally long.
    Returns:
        the numbers of the pieces of each window; every piece is in one.

    >>> pack(np.array([3, 5, 2, 4, 1]), 5, seed=0)
    [[1], [3, 4], [0, 2]]
    """
    shuffled = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    windows: list[list[int]] = []
    open_by_room: list[deque[int]] = [deque() for _ in range(room + 1)]
    # Bit r is set if a window with r places left is open.
    rooms = 0
    for piece in order.tolist():
        length = int(lengths[piece])
        # Clear the bits below `length`. The lowest bit that is left is the window with the least room that is enough.
        fitting = rooms >> length << length
        if fitting:
            left = (fitting & -fitting).bit_length() - 1
            number = open_by_room[left].popleft()
            if not open_by_room[left]:
                rooms ^= 1 << left
            windows[number].append(piece)
        else:
            left, number = room, len(windows)
            windows.append([piece])
        left -= length
        if left:
            open_by_room[left].append(number)
            rooms |= 1 << left
    return windows


class ConversationStream:
    """The samples of a run on conversations, numbered 0, 1, 2, ... without end. A sample is a window.

    Args:
        split: of a dataset of conversations.
        sequence_length: T.
        seed: any integer; another seed is another packing and another order.
        eot: the id that begins each conversation.
        limit: take conversations from the beginning of the stream while they have at most this many scored targets
            together, but at least one conversation. None takes all.
        order: sequential visits the windows as they were packed.
    Raises:
        DataError: no conversation fits.
    """

    def __init__(
        self,
        split: Split,
        sequence_length: int,
        seed: int,
        eot: int,
        limit: int | None = None,
        order: Order = "shuffled",
    ) -> None:
        self.split, self.sequence_length, self.seed, self.eot = split, sequence_length, seed, eot
        self.order = order
        self.conversations = find_conversations(split, eot, sequence_length)
        if limit is not None:
            self.conversations = self.conversations.first(limit)
        if not len(self.conversations.starts):
            raise DataError(
                f"{split.place} has no conversation whose first answer ends within {sequence_length} tokens; use a "
                "longer sequence length, or other conversations"
            )
        self.packed = pack(self.conversations.lengths - 1, sequence_length, seed)
        self.windows_per_epoch = len(self.packed)
        self.scored = np.array([self.conversations.scored[window].sum() for window in self.packed])

    def windows(self, first_sample: int, count: int) -> np.ndarray:
        """The numbers of the windows that are samples first_sample, first_sample + 1, ...: (count,) int64."""
        found = windows_of_samples(
            first_sample, count, self.windows_per_epoch, seed=self.seed, order=self.order
        )
        return np.concatenate([np.empty(0), *(numbers for _, numbers in found)]).astype(np.int64)

    def n_targets(self, first_sample: int, count: int) -> int:
        """How many targets of some samples are scored."""
        return int(self.scored[self.windows(first_sample, count)].sum())

    def batch(self, first_sample: int, count: int) -> Batch:
        """Samples first_sample to first_sample + count - 1; see `window`, stacked."""
        windows = [self.window(number) for number in self.windows(first_sample, count).tolist()]
        inputs, targets, positions = (np.stack(part) for part in zip(*windows, strict=True))
        return inputs, targets, positions

    def window(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One window.

        Returns:
            inputs (T,), targets (T,), positions (T,): int64. A new text begins wherever a position is 0. The padding
            counts as a text of its own.
        """
        assert self.split.scored is not None
        inputs, targets, positions = (np.empty(self.sequence_length, dtype=np.int64) for _ in range(3))
        at = 0
        for piece in self.packed[number]:
            start, length = (
                int(array[piece]) for array in (self.conversations.starts, self.conversations.lengths)
            )
            ids, scored = self.split.read(start, length), self.split.scored.read(start + 1, length - 1)
            part = slice(at, at + length - 1)
            inputs[part], positions[part] = ids[:-1], np.arange(length - 1)
            targets[part] = np.where(scored == 1, ids[1:], IGNORE)
            at += length - 1
        inputs[at:], targets[at:] = self.eot, IGNORE
        positions[at:] = np.arange(self.sequence_length - at)
        return inputs, targets, positions
