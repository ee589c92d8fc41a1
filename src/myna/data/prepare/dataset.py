"""A corpus becomes a dataset: the call, the order of the work, and dataset.json.

Chunks are cut the same way for any number of workers, and only their order decides where an id goes. Every few seconds
the shards are flushed and the journal is replaced. So a prepare that is killed loses seconds: run again, it cuts off
what the journal does not know of and goes on with the next chunk.

Memory: about 150 MB a worker on text whose documents are small; more for a larger row group or document, which is
held whole (a text file over 16 MB is not: it is read in parts). Disk: the shards, and a few encoded chunks and
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

from myna.data.prepare.assemble import Assembler
from myna.data.prepare.chunks import Chunk, chunks_of, is_small
from myna.data.prepare.encode import can_cut_texts
from myna.data.prepare.inputs import Inputs, described
from myna.data.prepare.shard_writer import require_shard_tokens
from myna.data.prepare.work_folder import WorkFolder, already_done, locked_work_folder
from myna.data.prepare.worker_pool import WorkerPool
from myna.data.shards import FORMAT, id_dtype, open_dataset
from myna.data.sources import cut
from myna.data.sources.corpora import default_val_fraction, find_files, is_web
from myna.data.sources.documents import only_document
from myna.data.sources.fetch import Fetcher
from myna.data.sources.formats import require_filter
from myna.data.sources.row_filter_syntax import parse_filter
from myna.data.sources.source import ReadOptions, Source
from myna.data.split import SPLITS, Dataset
from myna.errors import DataError, DownloadError, UsageError
from myna.files import json_bytes, sha256_bytes, write_synced
from myna.progress import Progress, speak
from myna.text.tokenizer import Tokenizer

SHARD_TOKENS = 100_000_000
JOURNAL_EVERY_S = 2.0
LEFT_OUT = {
    "empty": "empty documents",
    "unanswered": "without an answer",
    "bad": "bad ones",
    "filtered": "left out by --where",
    "damaged": "damaged records",
}


def prepare(
    corpus: Sequence[str],
    out: Path | str,
    tokenizer: Tokenizer,
    val_fraction: float | None = None,
    shard_tokens: int = SHARD_TOKENS,
    workers: int | None = None,
    column: str | None = None,
    skip_bad: bool = False,
    conversations: bool = False,
    where: str | None = None,
    quiet: bool = True,
) -> Dataset:
    """Turns a corpus into shards in the folder `out`, or finds that it is done.

    Args:
        corpus: what `sources/corpora.py` takes.
        val_fraction: share of the documents for validation; None for 0.1, or 0.01 for web corpora.
        shard_tokens: ids a file.
        workers: processes; None for one a core, or none where the corpus is small. The result does not depend on it.
        column: the text column of parquet, or field of JSONL; None to find it.
        skip_bad: leave out and count documents that can't be used, rather than stop at the first.
        conversations: the documents are conversations, and the tokenizer has their special tokens.
        where: which rows are documents, an expression; see `sources/row_filter.py`. None for all.
        quiet: no progress on stderr, and no word on stdout about files that were left out or an odd validation split.
    Returns:
        the dataset, not verified: it was just written.
    Raises:
        DataError: the corpus is missing, empty or bad.
        DownloadError: a remote file could not be fetched.
        OutputError: `out` can't be written, is full, in use, or holds something else.
        Stopped: Ctrl-C. What was done is kept.
        ChildError: a worker process met a defect of ours.
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
    rows = parse_filter(where) if where is not None else None
    call = {
        "corpus": list(corpus),
        "tokenizer": tokenizer.sha256,
        "val_fraction": fraction,
        "shard_tokens": shard_tokens,
        "column": column,
        "where": rows.text if rows else None,
        **({"conversations": True} if conversations else {}),
    }
    if not _is_done(out, call):
        files = find_files(corpus, None if quiet else speak)
        if rows is not None:
            for file in files:
                require_filter(file, rows)
        with locked_work_folder(out) as work:
            Preparation(work, files, tokenizer, call, workers, skip_bad, quiet).run(out)
    return open_dataset(out, verify=False, tokenizer=tokenizer)


def _is_done(out: Path, call: dict[str, Any]) -> bool:
    """Whether `out` is what this call makes. Local files must have the content that they had; where one is gone or
    can't be read, none is asked for.

    Raises:
        OutputError: it is something else.
    """
    if not already_done(out, call):
        return False
    if not any(map(is_web, call["corpus"])):
        with contextlib.suppress(DataError, DownloadError):
            already_done(out, call | {"files": described(find_files(call["corpus"]), {})})
    return True


class Preparation:
    """One run of the work that leads to a dataset. See `prepare`."""

    def __init__(
        self,
        work: WorkFolder,
        files: Sequence[Source],
        tokenizer: Tokenizer,
        call: dict[str, Any],
        workers: int | None,
        skip_bad: bool,
        quiet: bool,
    ) -> None:
        self.work, self.tokenizer, self.call, self.quiet = work, tokenizer, call, quiet
        self.corpus = files
        conversations = call.get("conversations", False)
        where = parse_filter(call["where"]) if call["where"] is not None else None
        asked = call["val_fraction"] and not conversations
        only = only_document(files, call["column"], where) if asked else None
        self.files = [only] if only else files
        self.options = ReadOptions(
            call["column"],
            call["val_fraction"],
            only is not None,
            can_cut_texts(tokenizer),
            skip_bad,
            conversations,
            where,
        )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = 0 if is_small(self.files) else workers or cores

    def run(self, out: Path) -> None:
        """Does the work that is not done yet and publishes the folder."""
        inputs = Inputs(self.corpus, self.work.inputs, self.work.journal.get("inputs", 0))
        sizes = [{"file": file.name, "bytes": file.n_bytes} for file in self.corpus]
        files = sha256_bytes(json_bytes(sizes))
        journal = self.work.begin(self.call | {"files": files, "part_bytes": cut.PART_BYTES})
        write_synced(self.work.path / "tokenizer.json", self.tokenizer.to_json())
        dtype = id_dtype(self.tokenizer.n_vocab)
        with Assembler(
            self.work.path, dtype, self.call["shard_tokens"], journal, self.options.conversations
        ) as assembler:
            self._assemble(assembler, inputs)
            splits = assembler.finish()
        self._check(assembler.totals)
        info = self._info(splits, assembler.totals, inputs.finish())
        write_synced(self.work.path / "dataset.json", json_bytes(info))
        self.work.publish(out)
        self._say_if_validation_is_one_document(assembler.totals)

    def _assemble(self, assembler: Assembler, inputs: Inputs) -> None:
        """Appends the encoded chunks in order, and saves the journal now and then."""
        sizes = [file.n_bytes for file in self.files]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        done = assembler.input_bytes
        began = saved = time.monotonic()
        tokens = text_bytes = 0
        with (
            Progress("prepare", total, done=done, counted=False, shown=not self.quiet) as progress,
            Fetcher(self.files, self.work.fetched) as fetcher,
            WorkerPool(self.workers, self.tokenizer, self.options, self.work.chunks) as pool,
        ):
            for chunk, future in self._encoded(pool, fetcher, assembler.position):
                record = future.result()
                assembler.append(chunk, record, self.work.chunks)
                inputs.add(record["inputs"])
                now = time.monotonic()
                tokens += sum(record[name]["tokens"] for name in SPLITS)
                text_bytes += sum(record[name]["bytes"] for name in SPLITS)
                rate = text_bytes / 1e6 / max(now - began, 1e-9)
                progress.advance(chunk.input_bytes, f"{tokens:,} tokens, {rate:.0f} MB/s")
                if now - saved >= JOURNAL_EVERY_S:
                    self.work.save({**assembler.state(), "inputs": inputs.save()})
                    fetcher.release_before(chunk.file)
                    saved = now
            self.work.save({**assembler.state(), "inputs": inputs.save()})

    def _encoded(
        self, pool: WorkerPool, fetcher: Fetcher, position: tuple[int, int]
    ) -> Iterator[tuple[Chunk, "Future[dict[str, Any]]"]]:
        """The chunks from `position` on, in order, with enough of the next ones in work."""
        ahead: deque[tuple[Chunk, Future[dict[str, Any]]]] = deque()
        for chunk in chunks_of(self.files, fetcher.get, self.options, position):
            ahead.append((chunk, pool.submit(chunk)))
            if len(ahead) > 2 * pool.count + 1:
                yield ahead.popleft()
        yield from ahead

    def _check(self, totals: dict[str, Any]) -> None:
        documents = sum(totals[name]["documents"] for name in SPLITS)
        if documents == 0:
            counts = ", ".join(
                f"{totals[count]:,} {words}"
                for count, words in LEFT_OUT.items()
                if totals[count] or count == "empty"
            )
            raise DataError(
                f"{', '.join(self.call['corpus'])}: no {'answer' if self.options.conversations else 'text'} in it "
                f"({counts}); nothing was prepared"
            )
        if totals["train"]["documents"] == 0:
            raise DataError(
                f"all {documents} documents fell to validation; prepare more text or lower --val-fraction"
            )

    def _say_if_validation_is_one_document(self, totals: dict[str, Any]) -> None:
        """A loss over one text says little of the others. In a corpus of one document it can't be otherwise."""
        largest, name = totals["largest_val"]
        share = largest / max(totals["val"]["bytes"], 1)
        if share > 0.5 and not self.options.is_single and not self.quiet:
            speak(
                f"one document of {name} is {100 * share:.0f}% of the validation split, so the validation loss is "
                "mostly its loss; split it into smaller documents, add text, or change --val-fraction"
            )

    def _info(
        self, splits: dict[str, dict[str, Any]], totals: dict[str, Any], files: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """dataset.json. Nothing in it depends on when, where or by how many workers it was made."""
        return {
            "format": FORMAT,
            "tokenizer": self.tokenizer.sha256,
            "vocab_size": self.tokenizer.n_vocab,
            "dtype": id_dtype(self.tokenizer.n_vocab).name,
            "source": {key: value for key, value in self.call.items() if key != "tokenizer"}
            | {
                "files": files,
                "empty_documents": totals["empty"],
                "bad_documents": totals["bad"],
                "first_bad": totals["first_bad"],
                **({"unanswered": totals["unanswered"]} if self.options.conversations else {}),
                **({"filtered_documents": totals["filtered"]} if self.options.where else {}),
                **(
                    {"damaged_records": totals["damaged"], "first_damaged": totals["first_damaged"]}
                    if any(file.kind == "warc" for file in self.corpus)
                    else {}
                ),
            },
            **splits,
        }
