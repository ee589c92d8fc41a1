"""`myna prepare`: a corpus becomes shards that training reads."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.part import read_part
from myna.errors import TokenizerError, UsageError
from myna.paths import given_path, quoted
from myna.progress import counted

if TYPE_CHECKING:
    from myna.data.split import Dataset
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prepare:
    """Turn text into token shards. Run the same command again to go on after an interruption."""

    corpus: Annotated[tuple[str, ...], tyro.conf.Positional] = field(default=())
    """pydoc, shakespeare, fineweb-edu, fineweb, openwebtext, openwebtext2, c4, redpajama, slimpajama, wikipedia,
    hf:OWNER/NAME[:CONFIG], an https or s3 address, or local files, folders and globs. Files are .txt .md .jsonl
    .parquet .warc .wet, or text with any other ending, each also compressed: .gz or .zst (.warc and .wet: .gz only).
    In folders, binary and hidden files are skipped. With --conversations: pydoc-chat, smoltalk, ultrachat,
    hf:OWNER/NAME[:CONFIG], .jsonl or .parquet."""
    out: Path | None = None
    """The folder to make."""
    tokenizer: str = "gpt2"
    """gpt2, bytes, a tokenizer's directory or file, or a run: the tokenizer of its model."""
    val_fraction: float | None = None
    """Share of the documents kept for validation. Default: 0.1, and 0.01 for web corpora."""
    shard_tokens: int = 100_000_000
    """Tokens in each shard file."""
    workers: int | None = None
    """Worker processes. Default: one per core. The result is the same for any number."""
    column: str | None = None
    """The text column of parquet files, or field of JSONL. Default: text, content, or the only one with text."""
    skip_bad: bool = False
    """Leave out and count documents that can't be read (not JSON, not UTF-8), instead of stopping at the first."""
    where: str | None = None
    """Keep only the rows for which this is true: "score >= 3 and language == 'en'". Names are columns. Use comparisons,
    in, and, or, not, None. A comparison with a missing value drops the row. For .jsonl, .parquet, .warc and .wet."""
    conversations: bool = False
    """The documents are conversations: lists of turns in a field `messages` (role, content) or `conversations` (from,
    value). The tokenizer gets the special tokens of a conversation, if it has none. Shards also keep which ids are
    scored: the assistant's words, and the end of its turn."""
    part: str | None = None
    """I/N: prepare only the Ith of N parts of the corpus, into OUT.parts. So N machines can share the work, in any
    order. `myna data join OUT` then makes one dataset from the parts."""
    from_shards: Path | None = None
    """Convert a folder of token files (build-nanogpt .npy, llm.c .bin, nanoGPT .bin) instead of reading a corpus. Name
    the tokenizer they were made with."""


def main(args: Sequence[str]) -> None:
    """Runs `myna prepare`."""
    refuse_empty(args)
    call = parse(Prepare, args, command="prepare")
    if call.out is None:
        raise UsageError("where to? name the folder to make with --out DIR")
    # Unfinished work is kept beside the folder, under the folder's name.
    if call.out.name in ("", ".."):
        raise UsageError(
            f"--out {call.out} has no name of its own; give the folder to make, such as data/notes"
        )
    if bool(call.corpus) == bool(call.from_shards):
        raise UsageError(
            "name a corpus (pydoc, shakespeare, fineweb-edu, FILE, FOLDER ...), or --from-shards DIR"
        )
    if call.conversations and call.from_shards:
        raise UsageError("--from-shards reads ids, which don't say who speaks; leave --conversations out")
    if call.where is not None and call.from_shards:
        raise UsageError("--from-shards reads ids, which have no columns; leave --where out")
    if call.part is not None and call.from_shards:
        raise UsageError("--from-shards copies ids, which takes one machine; leave --part out")
    part = read_part(call.part)
    tokenizer = _tokenizer(call.tokenizer)
    if call.conversations:
        from myna.text.chat import with_chat_tokens

        tokenizer = with_chat_tokens(tokenizer)
    found = _found(call.out, part)
    dataset = _run(call, tokenizer, part)
    print_result(
        dataset, "the options, the tokenizer and the sizes of the shards" if dataset.path in found else ""
    )
    if part is not None and "part" in dataset.info:
        print(
            f"part {call.part} is done. When all {part[1]} are done, run: myna data join {quoted(call.out)}"
        )


def _found(out: Path, part: tuple[int, int] | None) -> set[Path]:
    """The folders that this call could have made and that are finished before it."""
    from myna.data.prepare import Part
    from myna.data.prepare.parts import part_folder

    folders = [out] if part is None else [out, part_folder(out, Part(*part))]
    return {folder for folder in folders if os.path.isfile(folder / "dataset.json")}


def _tokenizer(spec: str) -> "Tokenizer":
    """The tokenizer that --tokenizer names: anything that `Tokenizer.open` takes, or a run."""
    from myna.run import Run
    from myna.text.tokenizer import Tokenizer

    if Run(given_path(spec, TokenizerError)).exists():
        from myna.model.open import find_model

        return Tokenizer.load(find_model(spec))
    return Tokenizer.open(spec)


def _run(call: Prepare, tokenizer: "Tokenizer", part: tuple[int, int] | None) -> "Dataset":
    assert call.out is not None
    if call.from_shards is not None:
        from myna.data.prepare.from_shards import convert_shards

        return convert_shards(call.from_shards, call.out, tokenizer, call.shard_tokens, quiet=False)
    from myna.data.prepare import Part, prepare

    return prepare(
        call.corpus,
        call.out,
        tokenizer,
        val_fraction=call.val_fraction,
        shard_tokens=call.shard_tokens,
        workers=call.workers,
        column=call.column,
        skip_bad=call.skip_bad,
        conversations=call.conversations,
        where=call.where,
        part=Part(*part) if part else None,
        quiet=False,
    )


def print_result(dataset: "Dataset", checked: str = "") -> None:
    """Prints the sizes of both splits, and how much was skipped and why.

    Args:
        checked: of a dataset that was there already: what of it was compared; nothing for one that was made now.
    """
    source = dataset.info["source"]
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        print(
            f"{name:>5}: {counted(split.n_documents, 'document')}, {counted(split.n_tokens, 'token')}, "
            f"{counted(split.n_bytes, 'byte')} of text, {counted(len(split.shards), 'shard')}"
        )
    if source.get("empty_documents"):
        print(f"skipped {counted(source['empty_documents'], 'empty document')}")
    if source.get("unanswered"):
        print(f"skipped {counted(source['unanswered'], 'conversation')} without an answer")
    if source.get("bad_documents"):
        print(f"skipped {counted(source['bad_documents'], 'bad document')}, the first: {source['first_bad']}")
    if source.get("filtered_documents"):
        print(f"left out {source['filtered_documents']:,} rows by --where")
    if source.get("damaged_records"):
        print(f"skipped {source['damaged_records']:,} damaged records, the first: {source['first_damaged']}")
    if checked:
        print(f"{dataset.path} is there already, so nothing was written; compared: {checked}")
        print(f"to compare the content of the shards, too: myna data show {quoted(dataset.path)} --verify")
    else:
        print(f"wrote {dataset.path}")
    if "part" not in dataset.info and not source.get("conversations"):
        data, out = quoted(dataset.path), quoted(Path("runs") / dataset.path.name)
        print(f"next: myna train pydoc --tokenizer from-data --data {data} --out {out}")
        print("      (pydoc is the recipe of a small network; gpt2-124m is the lecture's)")
