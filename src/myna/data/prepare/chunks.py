"""A corpus is cut into chunks of work: the same chunks whatever the number of workers.

A chunk is a part of one large file, or a run of small files, about 16 MB of text. A file's own chunks are found when
its turn comes, so that a thousand remote files are neither opened nor fetched before they are needed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from myna.data.prepare.share import Share
from myna.data.sources import cut
from myna.data.sources.source import ReadOptions, Source


@dataclass(frozen=True)
class Chunk:
    """One worker's work at a time.

    Attributes:
        file: the number of its first file among the corpus's files.
        index: its place among the chunks that begin in this file. (file, index) is its place in the corpus, and with
            that decides every byte that is written.
        parts: what to read, in order.
        input_bytes: how much of the corpus's files it stands for, for the progress bar.
    """

    file: int
    index: int
    parts: tuple[Source, ...]
    input_bytes: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.file:06d}_{self.index:06d}"


def chunks_of(
    share: Share, fetch: Callable[[int], Source], options: ReadOptions, position: tuple[int, int]
) -> Iterator[Chunk]:
    """The chunks of a share of a corpus from a position on, in order.

    Args:
        fetch: a file's number to the file on this machine; asked when the file's turn comes.
        position: (file, index) of the first chunk that is wanted.
    Raises:
        DataError: a file is not what its name says, or has no such column.
    """
    for run, before in share.runs:
        if run.start < position[0]:
            continue
        local = tuple(fetch(number) for number in run)
        if len(run) > 1:
            found = iter([(local, sum(file.n_bytes or 0 for file in local))])
        else:
            found = (((part,), n_bytes) for part, n_bytes in cut.cut_file(local[0], options))
        within = 0
        for index, (parts, n_bytes) in enumerate(found):
            if (run.start, index) >= position and share.has(before, within):
                yield Chunk(run.start, index, parts, n_bytes)
            within += n_bytes


def is_small(files: Sequence[Source]) -> bool:
    """Whether a corpus is so small that starting worker processes takes longer than encoding it here."""
    return (
        not any(file.is_remote for file in files)
        and sum(file.n_bytes or 0 for file in files) <= cut.PART_BYTES
    )
