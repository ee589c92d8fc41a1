"""The parts that several machines made become one dataset: the bytes that one machine would have made.

The ids of the parts, in order, are cut into shards anew. What is written so far is in the journal, so a join that is
killed goes on. The parts are removed when the dataset has its name.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from myna.data.prepare.assemble import Assembler, add_totals, no_totals
from myna.data.prepare.encode import SCORED
from myna.data.prepare.parts import joined_files, parts_folder, read_parts
from myna.data.prepare.record import dataset_info, require_documents, say_if_validation_is_one_document
from myna.data.prepare.work_folder import WorkFolder, already_done, locked_work_folder
from myna.data.shards import id_dtype, open_dataset
from myna.data.split import SPLITS, Dataset, Shard
from myna.files import json_bytes, remove_directory, sha256_bytes, write_synced
from myna.progress import Progress
from myna.text.tokenizer import Tokenizer

JOURNAL_EVERY_S = 2.0


def join(out: Path, quiet: bool = True) -> Dataset:
    """Makes the dataset `out` of its parts, or finds that it is done.

    Args:
        quiet: no progress on stderr, and no word on stdout about an odd validation split.
    Raises:
        DataError: a part is missing or damaged, or the parts don't belong together, or they hold nothing.
        OutputError: `out` can't be written, is full, in use, or holds something else.
        Stopped: Ctrl-C. What was done is kept.
    """
    if not os.path.exists(parts_folder(out)) and os.path.isfile(out / "dataset.json"):
        remove_directory(parts_folder(out))  # an earlier call may have been killed while it did so
        return open_dataset(out, verify=False)
    parts = read_parts(out)
    made = parts[0].info["part"]
    call, files = made["call"], joined_files([part.info["source"]["files"] for part in parts])
    if not already_done(out, call | {"files": files}):
        totals = no_totals()
        for part in parts:
            add_totals(totals, part.info["part"]["totals"])
        require_documents(call, totals)
        tokenizer = Tokenizer.load(parts[0].path)
        of_parts = sha256_bytes(json_bytes([part.info["sha256"] for part in parts]))
        with locked_work_folder(out) as work:
            journal = work.begin(call | {"parts": of_parts})
            write_synced(work.path / "tokenizer.json", tokenizer.to_json())
            dtype = id_dtype(tokenizer.n_vocab)
            conversations = call.get("conversations", False)
            with Assembler(work.path, dtype, call["shard_tokens"], journal, conversations) as assembler:
                assembler.totals = totals
                _copy(parts, assembler, work, quiet)
                splits = assembler.finish()
            info = dataset_info(call, tokenizer, files, splits, totals, made["archives"])
            write_synced(work.path / "dataset.json", json_bytes(info))
            work.publish(out)
        if not made["single"] and not quiet:
            say_if_validation_is_one_document(totals)
    remove_directory(parts_folder(out))
    return open_dataset(out, verify=False)


def _copy(parts: Sequence[Dataset], assembler: Assembler, work: WorkFolder, quiet: bool) -> None:
    """Appends the shards of the parts in order, and saves the journal now and then. A position is (part, shard)."""
    begun, saved = assembler.position, time.monotonic()
    total = sum(part.train.n_tokens + part.val.n_tokens for part in parts)
    done = sum(assembler.writers[name].tokens for name in SPLITS)
    with Progress("join", total, done=done, counted=False, shown=not quiet) as progress:
        for number, part in enumerate(parts):
            for index, (stream, shard) in enumerate(_shards(part)):
                if (number, index) < begun:
                    continue
                assembler.writers[stream].append_shard(shard)
                assembler.position = (number, index + 1)
                progress.advance(shard.tokens if stream in SPLITS else 0, f"part {number + 1}/{len(parts)}")
                if time.monotonic() - saved >= JOURNAL_EVERY_S:
                    work.save(assembler.state())
                    saved = time.monotonic()
        work.save(assembler.state())


def _shards(part: Dataset) -> Iterator[tuple[str, Shard]]:
    """A part's shards, each with the stream that it is a piece of."""
    for name, split in (("train", part.train), ("val", part.val)):
        for stream, row in ((name, split), (name + SCORED, split.scored)):
            for shard in row.shards if row is not None else ():
                yield stream, shard
