"""A corpus becomes a dataset: parallel, resumable, and the same bytes every time.

    files -> units -> pieces -> worker processes -> encoded pieces -> shard writers, in order -> dataset.json

Pieces are cut the same way for any number of workers, and only their order decides where an id goes. After every few
pieces the shards are flushed and the journal is replaced, so a prepare that is killed loses seconds: run again, it cuts
off what the journal does not know of and goes on with the next piece.

Memory: about 150 MB a worker on text whose documents are small; more for a larger row group or document, which is
held whole (a text file over 16 MB is not: it is read in stretches). Disk: the shards, and a few encoded pieces and
fetched files.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from myna.data.corpora import Corpus, default_val_fraction, find_corpus, is_web
from myna.data.documents import only_document
from myna.data.encode import finished_piece, remove_piece
from myna.data.fetch import Fetcher
from myna.data.partial import Partial, already_done, locked_partial
from myna.data.pieces import PIECE_BYTES, Cut, Piece, can_cut_texts, cut_unit, units_of
from myna.data.pool import Workers
from myna.data.progress import Report, progress
from myna.data.shards import FORMAT, id_dtype, open_dataset
from myna.data.sources import SourceFile
from myna.data.split import SPLITS, Dataset
from myna.data.writer import ShardWriter, require_shard_tokens
from myna.errors import DataError, DownloadError, UsageError
from myna.files import json_bytes, sha256_bytes, write_synced
from myna.text.tokenizer import Tokenizer

SHARD_TOKENS = 100_000_000
JOURNAL_EVERY_S = 2.0


def prepare(
    corpus: Sequence[str],
    out: Path | str,
    tokenizer: Tokenizer,
    val_fraction: float | None = None,
    shard_tokens: int = SHARD_TOKENS,
    workers: int | None = None,
    column: str | None = None,
    skip_bad: bool = False,
    quiet: bool = True,
) -> Dataset:
    """Turns a corpus into shards in the folder `out`, or finds that it is done.

    Args:
        corpus: what `corpora.py` takes.
        val_fraction: share of the documents for validation; None for 0.1, or 0.01 for web corpora.
        shard_tokens: ids a file.
        workers: processes; None for one a core, or none where the corpus is small. The result does not depend on it.
        column: the text column of parquet, or field of JSONL; None to find it.
        skip_bad: leave out and count documents that can't be used, rather than stop at the first.
        quiet: no progress on stderr.
    Returns:
        the dataset, not verified: it was just written.
    Raises:
        DataError: the corpus is missing, empty or bad.
        DownloadError: a remote file could not be fetched.
        OutputError: `out` can't be written, is full, in use, or holds something else.
        Stopped: Ctrl-C. What was done is kept.
    """
    out = Path(out)
    corpus = tuple(corpus)
    fraction = default_val_fraction(corpus) if val_fraction is None else val_fraction
    if not 0 <= fraction < 1:
        raise UsageError(
            f"a validation fraction of {fraction} is not possible; give 0 or more, and less than 1"
        )
    require_shard_tokens(shard_tokens)
    if workers is not None and workers < 1:
        raise UsageError(f"--workers is {workers}; the work needs at least 1 worker")
    call = {
        "corpus": list(corpus),
        "tokenizer": tokenizer.sha256,
        "val_fraction": fraction,
        "shard_tokens": shard_tokens,
        "column": column,
    }
    if not _is_done(out, call):
        found = find_corpus(corpus)
        with locked_partial(out) as partial:
            Preparation(partial, found, tokenizer, call, workers, skip_bad, quiet).run(out)
    return open_dataset(out, verify=False, tokenizer=tokenizer)


def _is_done(out: Path, call: dict[str, Any]) -> bool:
    """Whether `out` is what this call makes. Local files must be as they were; ones that are gone are not asked for.

    Raises:
        OutputError: it is something else.
    """
    if not already_done(out, call):
        return False
    if not any(map(is_web, call["corpus"])):
        with contextlib.suppress(DataError, DownloadError):
            already_done(out, call | {"files": _described(find_corpus(call["corpus"]).files)})
    return True


def _described(files: Sequence[SourceFile]) -> list[dict[str, Any]]:
    """What dataset.json keeps of the files: enough to see that they are others now."""
    return [{"file": file.name, "bytes": file.n_bytes} for file in files]


class Preparation:
    """One run of the work that leads to a dataset. See `prepare`."""

    def __init__(
        self,
        partial: Partial,
        corpus: Corpus,
        tokenizer: Tokenizer,
        call: dict[str, Any],
        workers: int | None,
        skip_bad: bool,
        quiet: bool,
    ) -> None:
        self.partial, self.tokenizer, self.call = partial, tokenizer, call
        self.skip_bad, self.quiet = skip_bad, quiet
        self.described = _described(corpus.files)
        only = only_document(corpus.files, call["column"]) if call["val_fraction"] else None
        self.cut = Cut(call["column"], call["val_fraction"], only is not None, can_cut_texts(tokenizer))
        self.files = (only,) if only else corpus.files
        self.units = units_of(self.files)
        sizes = [file.n_bytes for file in self.files]
        self.total_bytes = None if None in sizes else sum(size or 0 for size in sizes)
        self.workers = self._worker_count(workers)

    def _worker_count(self, asked: int | None) -> int:
        """Processes: none for a corpus of one piece, else what was asked for, or one a core."""
        is_local = not any(file.is_remote for file in self.files)
        if is_local and sum(file.n_bytes or 0 for file in self.files) <= PIECE_BYTES:
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return asked or cores

    def run(self, out: Path) -> None:
        """Does the work that is not done yet and publishes the folder."""
        journal = self._begin()
        totals = journal["totals"]
        dtype = id_dtype(self.tokenizer.n_vocab)
        writers = {
            name: ShardWriter(self.partial.path, name, dtype, self.call["shard_tokens"], journal[name])
            for name in SPLITS
        }
        try:
            self._assemble(writers, totals, journal["position"])
            for writer in writers.values():
                writer.finish()
        finally:
            for writer in writers.values():
                writer.close()
        self._check(totals)
        write_synced(self.partial.path / "dataset.json", json_bytes(self._info(writers, totals)))
        self.partial.publish(out)

    def _begin(self) -> dict[str, Any]:
        """The journal to go on from: a new one, or an earlier call's."""
        empty = {name: {"documents": 0, "bytes": 0} for name in SPLITS} | {
            "empty": 0,
            "bad": 0,
            "first_bad": None,
        }
        journal = self.partial.begin(
            self.call | {"files": sha256_bytes(json_bytes(self.described)), "piece_bytes": PIECE_BYTES},
            {"position": [0, 0], "input_bytes": 0, "totals": empty, "train": {}, "val": {}},
        )
        self.partial.pieces.mkdir(exist_ok=True)
        write_synced(self.partial.path / "tokenizer.json", self.tokenizer.to_json())
        return journal

    def _assemble(self, writers: dict[str, ShardWriter], totals: dict[str, Any], position: list[int]) -> None:
        """Takes the encoded pieces in order and appends them to the shards."""
        done: list[Piece] = []
        saved = time.monotonic()
        input_bytes = self.partial.journal["input_bytes"]
        with (
            progress(self.total_bytes, input_bytes, self.quiet) as report,
            Fetcher(self.files, self.partial.fetched) as fetcher,
            Workers(
                self.workers,
                self.tokenizer,
                self.call["val_fraction"],
                self.skip_bad,
                self.partial.pieces,
            ) as workers,
        ):
            for piece, future in self._encoded(workers, fetcher, position):
                self._append(piece, future.result(), writers, totals, report)
                input_bytes += piece.input_bytes
                done.append(piece)
                if time.monotonic() - saved >= JOURNAL_EVERY_S:
                    self._save(done, writers, totals, input_bytes, fetcher)
                    done, saved = [], time.monotonic()
            if done:
                self._save(done, writers, totals, input_bytes, fetcher)

    def _append(
        self,
        piece: Piece,
        record: dict[str, Any],
        writers: dict[str, ShardWriter],
        totals: dict[str, Any],
        report: Report,
    ) -> None:
        for name, writer in writers.items():
            part = record[name]
            writer.append(self.partial.pieces / f"{piece.name}.{name}", part["tokens"], part["crc"])
            totals[name]["documents"] += part["documents"]
            totals[name]["bytes"] += part["bytes"]
        totals["empty"] += record["empty"]
        totals["bad"] += record["bad"]
        totals["first_bad"] = totals["first_bad"] or record["first_bad"]
        text_bytes, tokens = (sum(record[name][key] for name in SPLITS) for key in ("bytes", "tokens"))
        report(piece.input_bytes, text_bytes, tokens)

    def _save(
        self,
        done: list[Piece],
        writers: dict[str, ShardWriter],
        totals: dict[str, Any],
        input_bytes: int,
        fetcher: Fetcher,
    ) -> None:
        """Makes what was appended durable, then forgets the pieces and files that are no longer needed."""
        for writer in writers.values():
            writer.sync()
        last = done[-1]
        self.partial.save(
            {
                "call": self.partial.journal["call"],
                "position": [last.unit, last.index + 1],
                "input_bytes": input_bytes,
                "totals": totals,
                **{name: writer.state() for name, writer in writers.items()},
            }
        )
        for piece in done:
            remove_piece(self.partial.pieces, piece.name)
        fetcher.release_before(self.units[last.unit].first)

    def _encoded(
        self, workers: Workers, fetcher: Fetcher, position: list[int]
    ) -> Iterator[tuple[Piece, "Future[dict[str, Any]]"]]:
        """The pieces from `position` on, in order, with enough of the next ones in work."""
        ahead: deque[tuple[Piece, Future[dict[str, Any]]]] = deque()
        for piece in self._pieces(fetcher, position):
            record = finished_piece(self.partial.pieces, piece.name)
            if record is None:
                future = workers.submit(piece)
            else:
                future = Future()
                future.set_result(record)
            ahead.append((piece, future))
            if len(ahead) > 2 * workers.count + 1:
                yield ahead.popleft()
        yield from ahead

    def _pieces(self, fetcher: Fetcher, position: list[int]) -> Iterator[Piece]:
        for unit in self.units[position[0] :]:
            paths = [fetcher.get(number) for number in range(unit.first, unit.first + len(unit.files))]
            for piece in cut_unit(unit, paths, self.cut):
                if [piece.unit, piece.index] >= position:
                    yield piece

    def _check(self, totals: dict[str, Any]) -> None:
        documents = sum(totals[name]["documents"] for name in SPLITS)
        if documents == 0:
            raise DataError(
                f"{', '.join(self.call['corpus'])}: no text in it ({totals['empty']:,} empty documents, "
                f"{totals['bad']:,} bad ones); nothing was prepared"
            )
        if totals["train"]["documents"] == 0:
            raise DataError(
                f"all {documents} documents fell to validation; prepare more text or lower --val-fraction"
            )

    def _info(self, writers: dict[str, ShardWriter], totals: dict[str, Any]) -> dict[str, Any]:
        """dataset.json. Nothing in it depends on when, where or by how many workers it was made."""
        return {
            "format": FORMAT,
            "tokenizer": self.tokenizer.sha256,
            "vocab_size": self.tokenizer.n_vocab,
            "dtype": id_dtype(self.tokenizer.n_vocab).name,
            "source": {key: value for key, value in self.call.items() if key != "tokenizer"}
            | {
                "files": self.described,
                "empty_documents": totals["empty"],
                "bad_documents": totals["bad"],
                "first_bad": totals["first_bad"],
            },
            **{
                name: {**totals[name], "tokens": writers[name].tokens, "shards": writers[name].shards}
                for name in SPLITS
            },
        }
