"""`myna prepare`: a corpus becomes shards that training reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.errors import UsageError

if TYPE_CHECKING:
    from myna.data.split import Dataset
    from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prepare:
    """Turn text into token shards. Run the same command again to go on after an interruption."""

    corpus: Annotated[tuple[str, ...], tyro.conf.Positional] = field(default=())
    """pydoc, shakespeare, fineweb-edu, fineweb, openwebtext, slimpajama, wikipedia, hf:OWNER/NAME[:CONFIG], an https or
    s3 address, or local files, folders and globs: .txt .md .jsonl .parquet, text of any other name, all also with .gz
    or .zst. Binary and hidden files are left out of folders."""
    out: Path | None = None
    """The folder to make."""
    tokenizer: str = "gpt2"
    """gpt2, bytes, or a tokenizer's directory or file."""
    val_fraction: float | None = None
    """Share of the documents kept for validation. Default: 0.1, and 0.01 for web corpora."""
    shard_tokens: int = 100_000_000
    """Tokens a shard file."""
    workers: int | None = None
    """Worker processes. Default: one a core. The result is the same for any number."""
    column: str | None = None
    """The text column of parquet files, or field of JSONL. Default: text, content, or the only one with text."""
    skip_bad: bool = False
    """Leave out and count documents that can't be read (not JSON, not UTF-8), instead of stopping at the first."""
    from_shards: Path | None = None
    """Convert a folder of token files (build-nanogpt .npy, llm.c .bin, nanoGPT .bin) instead of reading a corpus. Name
    the tokenizer they were made with."""


def main(args: Sequence[str]) -> None:
    """Runs `myna prepare`."""
    refuse_empty(args)
    call = parse(Prepare, args, command="prepare")
    if call.out is None:
        raise UsageError("where to? name the folder to make with --out DIR")
    if bool(call.corpus) == bool(call.from_shards):
        raise UsageError(
            "name a corpus (pydoc, shakespeare, fineweb-edu, FILE, FOLDER ...), or --from-shards DIR"
        )
    from myna.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.open(call.tokenizer)
    _print_result(_run(call, tokenizer))


def _run(call: Prepare, tokenizer: "Tokenizer") -> "Dataset":
    assert call.out is not None
    if call.from_shards is not None:
        from myna.data.prepare.from_shards import convert_shards

        return convert_shards(call.from_shards, call.out, tokenizer, call.shard_tokens, quiet=False)
    from myna.data.prepare import prepare

    return prepare(
        call.corpus,
        call.out,
        tokenizer,
        val_fraction=call.val_fraction,
        shard_tokens=call.shard_tokens,
        workers=call.workers,
        column=call.column,
        skip_bad=call.skip_bad,
        quiet=False,
    )


def _print_result(dataset: "Dataset") -> None:
    source = dataset.info["source"]
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        print(
            f"{name:>5}: {split.n_documents:,} documents, {split.n_tokens:,} tokens, {split.n_bytes:,} bytes of text, "
            f"{len(split.shards)} shard{'s' * (len(split.shards) != 1)}"
        )
    if source.get("empty_documents"):
        print(f"skipped {source['empty_documents']:,} empty documents")
    if source.get("bad_documents"):
        print(f"skipped {source['bad_documents']:,} bad documents, the first: {source['first_bad']}")
    print(f"wrote {dataset.path}")
