"""A corpus becomes a dataset: the call, the order of the work, and dataset.json.

Chunks are cut the same way for any number of workers, and only their order decides where an id goes. Every few seconds
the shards are flushed and the journal is replaced. So a prepare that is killed loses seconds: run again, it cuts off
what the journal does not know of and goes on with the next chunk.

Memory: about 150 MB a worker on text whose documents are small; more for a larger row group or document, which is
held whole (a text file over 16 MB is not: it is read in parts). Disk: the shards, and a few encoded chunks and
fetched files.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from myna.cores import usable_cores
from myna.data.prepare.assemble import Assembler
from myna.data.prepare.chunks import Chunk, chunks_of, is_small
from myna.data.prepare.encode import can_cut_texts
from myna.data.prepare.inputs import Inputs, described
from myna.data.prepare.parts import part_folder, part_info
from myna.data.prepare.record import dataset_info, require_documents, say_if_validation_is_one_document
from myna.data.prepare.shard_writer import require_shard_tokens
from myna.data.prepare.share import Part, Share
from myna.data.prepare.work_folder import WorkFolder, already_done, locked_work_folder
from myna.data.prepare.worker_pool import WorkerPool
from myna.data.shards import id_dtype, open_dataset
from myna.data.sources import cut
from myna.data.sources.corpora import default_val_fraction, find_files, is_web
from myna.data.sources.documents import only_document
from myna.data.sources.fetch import Fetcher
from myna.data.sources.formats import require_filter
from myna.data.sources.reading import reading, still
from myna.data.sources.row_filter_syntax import parse_filter
from myna.data.sources.source import ReadOptions, Source
from myna.data.split import SPLITS, Dataset
from myna.data.verify import hash_file
from myna.errors import DataError, DownloadError, UsageError
from myna.files import json_bytes, sha256_bytes, write_synced
from myna.progress import Progress, speak
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
    conversations: bool = False,
    where: str | None = None,
    part: Part | None = None,
    quiet: bool = True,
) -> Dataset:
    """Turns a corpus into shards in the folder `out`, or finds that it is done.

    Args:
        corpus: what `sources/corpora.py` takes.
        val_fraction: share of the documents for validation; None for 0.1, or 0.01 for web corpora.
        shard_tokens: ids a file.
        workers: processes; None for one per core, or none where the corpus is small. The result does not depend on it.
        column: the text column of parquet, or field of JSONL; None to find it.
        skip_bad: leave out and count documents that can't be used, rather than stop at the first.
        conversations: the documents are conversations, and the tokenizer has their special tokens.
        where: which rows are documents, an expression; see `sources/row_filter.py`. None for all.
        part: only this part of the corpus, for `join`; its folder is `parts.part_folder`. Nothing is done if `out` is
            there already.
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
    if part is not None and not already_done(out, call):
        out, call = part_folder(out, part), call | {"part": str(part)}
    if not _is_done(out, call):
        files = find_files(corpus, None if quiet else speak)
        if rows is not None:
            for file in files:
                require_filter(file, rows)
        with locked_work_folder(out) as work:
            Preparation(work, files, tokenizer, call, workers, skip_bad, part, quiet).run(out)
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
            files = described(find_files(call["corpus"]), {}, find="part" not in call)
            already_done(out, call | {"files": files})
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
        part: Part | None,
        quiet: bool,
    ) -> None:
        self.work, self.tokenizer, self.call, self.quiet = work, tokenizer, call, quiet
        self.corpus, self.part = files, part
        conversations = call.get("conversations", False)
        where = parse_filter(call["where"]) if call["where"] is not None else None
        asked = call["val_fraction"] and not conversations
        only = only_document(files, call["column"], where) if asked else None
        files = [only] if only else files
        self.options = ReadOptions(
            call["column"],
            call["val_fraction"],
            only is not None,
            can_cut_texts(tokenizer),
            skip_bad,
            conversations,
            where,
        )
        self.workers = 0 if is_small(files) else workers or usable_cores()
        self.share = Share(files, self.options, part)

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
        totals, single = assembler.totals, self.options.is_single
        if self.part is None:
            require_documents(self.call, totals)
        # Of a corpus of one document the first part reads the beginning, and says what the other files were.
        entries = inputs.finish(find=self.part is None or (single and self.part.number == 1))
        archives = any(file.kind == "warc" for file in self.corpus)
        info = dataset_info(self.call, self.tokenizer, entries, splits, totals, archives)
        if self.part is not None:
            info = part_info(info, self.part, self.call, totals, archives, single)
        write_synced(self.work.path / "dataset.json", json_bytes(info))
        self.work.publish(out)
        if self.part is None and not single and not self.quiet:
            say_if_validation_is_one_document(totals)

    def _assemble(self, assembler: Assembler, inputs: Inputs) -> None:
        """Appends the encoded chunks in order, and saves the journal now and then."""
        files, done = self.share.files, assembler.input_bytes
        began = saved = time.monotonic()
        tokens = text_bytes = 0
        with (
            Progress(
                "prepare", self.share.n_bytes, done=done, counted=False, shown=not self.quiet
            ) as progress,
            Fetcher(files, self.work.fetched) as fetcher,
            WorkerPool(self.workers, self.tokenizer, self.options, self.work.chunks) as pool,
        ):
            for chunk, future in self._encoded(pool, fetcher, assembler.position):
                record = future.result()
                assembler.append(chunk, record, self.work.chunks)
                inputs.add(record["inputs"])
                first = chunk.parts[0]
                # Another part has the beginning of the file; both say what the file was, and the join compares.
                if first.start and first.is_hashed and not inputs.knows(first.name):
                    with still(first), reading(first):
                        inputs.add([(first.name, *hash_file(first.place))])
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
        for chunk in chunks_of(self.share, fetcher.get, self.options, position):
            ahead.append((chunk, pool.submit(chunk)))
            if len(ahead) > 2 * pool.count + 1:
                yield ahead.popleft()
        yield from ahead
