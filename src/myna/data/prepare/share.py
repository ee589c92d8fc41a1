"""Which chunks of a corpus one of several machines encodes.

The corpus's files in a row are one stretch of bytes. N parts cut it into N equal pieces, and a chunk belongs to the
piece in which it begins. So a part's chunks are neighbours, and the parts in order are the corpus. Where the size of a
file is not known before it is fetched, all files count the same and none is cut.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from myna.data.sources import cut
from myna.data.sources.source import ReadOptions, Source

CHUNK_FILES = 1024
# What a byte of a compressed file stands for, roughly: only the size of chunks depends on it.
EXPANSION = 4


class Part(NamedTuple):
    """Part `number` of `of`; parts count from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class Share:
    """A part's share of a corpus: by default, all of it.

    Attributes:
        runs: the runs of files that may have chunks of this part, each with what counts before it.
        files: of the corpus those up to the last one of these runs: nobody fetches a later one.
        n_bytes: how much of the corpus's files the share stands for, roughly; None where a size is not known.
    """

    def __init__(self, files: Sequence[Source], options: ReadOptions, part: Part | None = None) -> None:
        self._part = part or Part(1, 1)
        sizes = [0 if file.is_built_in else file.n_bytes for file in files]
        runs = runs_of(files)
        self._is_sized = None not in sizes
        counts = [sum(sizes[number] or 0 for number in run) if self._is_sized else 1 for run in runs]
        self._total = max(sum(counts), 1)
        self.runs: list[tuple[range, int]] = []
        for run, before, count in zip(runs, itertools.accumulate(counts, initial=0), counts, strict=False):
            is_cut = self._is_sized and len(run) == 1 and cut.may_be_cut(files[run.start], options)
            last = before + max(count - 1, 0) * is_cut
            if self._number(before) <= self._part.number <= self._number(last):
                self.runs.append((run, before))
        self.files = files[: self.runs[-1][0].stop if self.runs else 0]
        number, of = self._part
        ends = (self._total * (number - 1) // of, self._total * number // of)
        self.n_bytes = ends[1] - ends[0] if self._is_sized else None

    def _number(self, place: int) -> int:
        """The number of the part in whose piece a place of the corpus is."""
        return min(place * self._part.of // self._total, self._part.of - 1) + 1

    def has(self, before: int, within: int) -> bool:
        """Whether the chunk belongs to it that begins `within` bytes after the beginning of a run."""
        return self._number(before + within * self._is_sized) == self._part.number


def runs_of(files: Sequence[Source]) -> list[range]:
    """The numbers of the files, in runs: several small files that make one chunk, or one large or remote file."""
    runs: list[range] = []
    start = run_bytes = 0
    for number, file in enumerate(files):
        size = (file.n_bytes or 0) * (EXPANSION if file.compression or file.kind == "parquet" else 1)
        alone = file.is_remote or size >= cut.PART_BYTES
        if start < number and (alone or run_bytes + size > cut.PART_BYTES or number - start == CHUNK_FILES):
            runs.append(range(start, number))
            start, run_bytes = number, 0
        run_bytes += size
        if alone:
            runs.append(range(number, number + 1))
            start, run_bytes = number + 1, 0
    if start < len(files):
        runs.append(range(start, len(files)))
    return runs
