"""Fill in the middle, in training: some documents of a window have their middle moved to their end.

A window of T+1 ids is taken apart at its end-of-text ids. (Its first part has none where it begins inside a document.)
Each part becomes, with probability `rate` and half the time each, prefix-suffix-middle or suffix-prefix-middle, framed
by three special tokens (text/fim.py); its end-of-text id stays in front. What follows the middle is the next
end-of-text id, so a model learns where a middle ends.

- The two cuts are at random characters: ids become bytes, bytes are cut where a character begins, and the three parts
  are encoded by themselves. So a model learns to begin and end inside a word, where people put a cursor.
- Frames, and words that are cut, need more ids. What no longer fits the window at its end is left out, so such an id is
  no target in that epoch; `FillStream.measured` says how many those are. Nothing is ever padded.
- Some parts stay as they are: one without text, one that holds another special token (it would turn into text), and
  one that would come out shorter than it was. (A document's part at a window's edge may begin inside a word,
  and its ids are then not those that its text alone has.)
- Sample k is a function of (seed, k) alone, as in `batches.py`: a resume is exact, at any world size and micro-batch.

What it costs: at T = 1024, GPT-2's tokenizer and a rate of 0.5, a batch takes some 30 times as long as without: 1.2 ms
a window on one busy core instead of 0.04 (the median of 12 batches of 64 windows of pydoc, in turn). The thread that
loads ahead does it; where it is too slow for the device, `input_wait_seconds` shows it.

Source: Bavarian et al. 2022, arXiv:2207.14255: section 3 (cuts uniformly at random, the loss on all parts and on the
end of text), 3.1 (both orders, half each), 3.2 and appendix C (after the windows are cut, at characters; the result is
trimmed). The paper removes halves of characters at a window's edges; here they stay, as bytes of their part.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from myna.data.batches import TrainStream
from myna.data.split import Split
from myna.settings import Order
from myna.text.fim import Frames
from myna.text.tokenizer import Tokenizer

MEASURED_WINDOWS = 64
_DRAWS = 4  # random numbers a document: whether, in which order, and two cuts


@dataclass(frozen=True)
class Filled:
    """A window after its documents were rearranged, before it is cut to its length.

    Attributes:
        documents: parts with text that it has.
        moved: those of them whose middle stands at their end.
    """

    ids: list[int]
    documents: int
    moved: int


class FillStream(TrainStream):
    """A train stream some of whose documents have their middle at their end. See `TrainStream`.

    Args:
        tokenizer: the dataset's, with the tokens of `text/fim.py`.
        rate: of the documents, how many are rearranged, 0 to 1.
    """

    def __init__(
        self,
        split: Split,
        sequence_length: int,
        seed: int,
        *,
        tokenizer: Tokenizer,
        rate: float,
        order: Order = "shuffled",
    ) -> None:
        super().__init__(split, sequence_length, seed, order=order)
        self.rate = rate
        self._tokenizer, self._eot, self._frames = tokenizer, tokenizer.eot, Frames.of(tokenizer)
        self._is_text = tokenizer.text_ids()

    def batch(self, first_sample: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `TrainStream.batch`."""
        length = self.sequence_length + 1
        ids = np.empty((count, length), dtype=np.int64)
        for row, filled in zip(ids, self.filled(first_sample, count), strict=True):
            row[:] = filled.ids[:length]
        return ids[:, :-1], ids[:, 1:]

    def filled(self, first_sample: int, count: int) -> Iterator[Filled]:
        """The windows of some samples, each of T+1 ids or more."""
        for number, start in enumerate(self.windows(first_sample, count).tolist()):
            yield self._filled(first_sample + number, start)

    def _filled(self, sample: int, start: int) -> Filled:
        ids = self.split.read(start, self.sequence_length + 1, ring=True)
        parts = np.split(ids, np.flatnonzero(ids == self._eot))
        found: list[int] = []
        documents = moved = 0
        for part, draws in zip(parts, _draws(self.seed, sample, len(parts)), strict=True):
            head = int(len(part) and part[0] == self._eot)
            text = part[head:]
            found += part[:head].tolist()
            new = self._rearranged(text, *draws) if len(text) else None
            documents += bool(len(text))
            moved += new is not None
            found += text.tolist() if new is None else new
        return Filled(found, documents, moved)

    def measured(self, windows: int = MEASURED_WINDOWS) -> tuple[float, float]:
        """Of the run's first windows: the share of documents rearranged, and the share of ids that no longer fit."""
        found = list(self.filled(0, windows))
        ids, documents = sum(len(one.ids) for one in found), sum(one.documents for one in found)
        kept = windows * (self.sequence_length + 1)
        return sum(one.moved for one in found) / max(documents, 1), (ids - kept) / ids

    def _rearranged(self, text: np.ndarray, whether: int, order: int, *cuts: int) -> list[int] | None:
        """A document's ids with its middle at its end; None where it stays as it is."""
        if (whether >> 11) / (1 << 53) >= self.rate or not self._is_text[text].all():
            return None
        data = self._tokenizer.decode_bytes(text.tolist())
        borders = character_borders(data)
        first, second = sorted(borders[cut * len(borders) >> 64] for cut in cuts)
        prefix, middle, suffix = map(self._encode, (data[:first], data[first:second], data[second:]))
        arrange = self._frames.suffix_first if order & 1 else self._frames.prefix_first
        new = arrange(prefix, suffix, middle)
        return new if len(new) >= len(text) else None

    def _encode(self, data: bytes) -> list[int]:
        """The ids of a part, which may begin or end inside a character where the window did."""
        start = len(data) - len(data.lstrip(_CONTINUATION))
        ids = self._tokenizer.encode_bytes(data[:start]) if start else []
        return ids + self._tokenizer.encode_bytes(data[start:])


_CONTINUATION = bytes(range(0x80, 0xC0))  # of UTF-8: bytes that begin no character


def character_borders(data: bytes) -> Sequence[int]:
    """Where bytes of UTF-8 may be cut: before each character, and at both ends.

    >>> character_borders("aéz".encode())
    [0, 1, 3, 4]
    >>> character_borders("é".encode()[1:] + b"z")     # a window began inside the first
    [0, 1, 2]
    """
    values = np.frombuffer(data, dtype=np.uint8)
    begins = np.flatnonzero((values & 0xC0) != 0x80).tolist()
    return [*([] if begins[:1] == [0] else [0]), *begins, len(data)]


def _draws(seed: int, sample: int, documents: int) -> list[list[int]]:
    """Random 64-bit numbers for each document of a sample, from (seed, sample) alone."""
    digest = hashlib.shake_256(f"myna fill {seed} {sample}".encode()).digest(8 * _DRAWS * documents)
    return np.frombuffer(digest, dtype="<u8").reshape(documents, _DRAWS).tolist()
