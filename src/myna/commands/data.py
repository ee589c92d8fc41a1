"""`myna data show`: look before you train. `myna data join`: parts become one dataset. `myna data overlap`: did the
training text hold the test?"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from myna.commands import parse
from myna.errors import DataError, UsageError
from myna.paths import given_path
from myna.store.address import is_url
from myna.store.here import address_of, here

if TYPE_CHECKING:
    from myna.data.split import Dataset, Split
    from myna.text.tokenizer import Tokenizer

BAR_WIDTH = 40
WINDOW_TOKENS = 64


@dataclass(frozen=True)
class Data:
    """Look into a prepared dataset: show prints what it holds; overlap says which items of HellaSwag share words with
    its training text, for `myna eval --task hellaswag --overlap FILE`. join makes the dataset of the parts that `myna
    prepare --part I/N` made, and removes them."""

    action: Annotated[Literal["show", "join", "overlap"], tyro.conf.Positional]
    """What to do."""
    dir: Annotated[str, tyro.conf.Positional]
    """The dataset's folder. show and overlap also take its URL on another store."""
    verify: bool = False
    """show: read every shard and compare its SHA-256, whatever was verified before."""
    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's directory or file. Default: the dataset's own; other projects' files need it."""
    windows: int = 3
    """show: how many windows to print as text; 0 for none."""
    items: Annotated[Path | None, tyro.conf.arg(name="with")] = None
    """overlap: items in HellaSwag's official format (JSONL)."""
    words: int = 13
    """overlap: so many words in a row count, in lower case and without punctuation."""
    workers: int | None = None
    """overlap: processes. Default: one per core."""
    out: Path | None = None
    """overlap: the JSON file to write. Default: print it."""


def main(args: Sequence[str]) -> None:
    """Runs `myna data`."""
    call = parse(Data, args, command="data")
    if call.action == "overlap":
        overlap(call)
        return
    for name in ("items", "out", "workers"):
        if getattr(call, name) is not None:
            raise UsageError(
                f"--{'with' if name == 'items' else name} belongs to `myna data overlap`; leave it out"
            )
    if call.action == "join":
        join(call)
    else:
        show(call)


def join(call: Data) -> None:
    """Makes a dataset of its parts.

    Raises:
        UsageError: an option of another action. DataError, OutputError, Stopped: see `myna.data.prepare.join`.
    """
    from myna.commands.prepare import print_result
    from myna.data.prepare.join import join as joined

    for name in ("verify", "tokenizer"):
        if getattr(call, name):
            raise UsageError(f"--{name} belongs to `myna data show`; leave it out")
    if is_url(call.dir):
        raise UsageError(
            "join writes the dataset into the folder of its parts; give a folder of this machine"
        )
    out = given_path(call.dir)
    found = os.path.isfile(out / "dataset.json")
    dataset = joined(out, quiet=False)
    print_result(dataset, "the tokenizer and the sizes of the shards" if found else "")


def overlap(call: Data) -> None:
    """Searches the training text for items.

    Raises:
        UsageError: no items are named, or a number that can't be. DataError: a file is not what it should be.
    """
    from myna.data.remote import fetch_data
    from myna.data.shards import open_dataset
    from myna.evaluate.hellaswag import read_items
    from myna.evaluate.overlap import overlap as searched
    from myna.files import json_bytes, write_atomic
    from myna.progress import Progress
    from myna.text.tokenizer import Tokenizer

    if call.items is None:
        raise UsageError("no items; name them with --with hellaswag_val.jsonl")
    for name in ("words", "workers"):
        if (number := getattr(call, name)) is not None and number < 1:
            raise UsageError(f"--{name} is {number}; give 1 or more")
    items = read_items(call.items)
    path = here(call.dir, fetch_data)
    tokenizer = Tokenizer.open(call.tokenizer) if call.tokenizer else Tokenizer.load(path)
    dataset = open_dataset(path, verify=False, tokenizer=tokenizer)
    with Progress("tokens", dataset.train.n_tokens) as progress:
        found = searched(
            dataset, tokenizer, items, call.items, n=call.words, workers=call.workers, on_ids=progress.advance
        )
    text = json_bytes(found)
    if call.out is None:
        print(text.decode(), end="")
        return
    write_atomic(call.out, text)
    print(f"{call.out}: {len(found['touched']):,} of {len(items):,} items share {call.words} words in a row")


def show(call: Data) -> None:
    """Prints what a dataset holds."""
    from rich.console import Console

    from myna.data.other_projects import remark_on
    from myna.data.remote import fetch_data
    from myna.data.shards import open_dataset, verify_shards
    from myna.text.tokenizer import Tokenizer

    if call.windows < 0:
        raise UsageError(f"--windows is {call.windows}; give 1 or more, or 0 for none")
    named = Tokenizer.open(call.tokenizer) if call.tokenizer else None
    path = here(call.dir, fetch_data)
    dataset = open_dataset(path, verify=False, tokenizer=named)
    tokenizer = named or Tokenizer.load(dataset.path)
    dataset = open_dataset(path, verify=False, tokenizer=tokenizer)
    console = Console(highlight=False, markup=False)
    _print_summary(console, dataset)
    if remark := remark_on(dataset):
        console.print(remark, soft_wrap=True)
    if call.verify:
        shards = [shard for stream in dataset.streams() for shard in stream.shards]
        hashed = sum(shard.sha256 is not None for shard in shards)
        if not hashed:
            raise DataError(
                f"{call.dir} states no hashes to verify; convert it with `myna prepare --from-shards`"
            )
        verify_shards(shards, fresh=True)
        console.print(f"\nverified: {hashed} shards, each is what was prepared")
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        if split.n_tokens:
            _print_split(console, name, split, tokenizer, call.windows)


def _print_summary(console: Any, dataset: "Dataset") -> None:
    from rich.table import Table

    source = dataset.info["source"]
    made_from = source.get("corpus") or [source["from_shards"]] if isinstance(source, dict) else source
    console.print(f"{address_of(dataset.path)}: {', '.join(map(str, made_from))}", soft_wrap=True)
    if isinstance(source, dict) and source.get("where"):
        console.print(f"rows: {source['where']}", soft_wrap=True, markup=False)
    console.print(
        f"format {dataset.info['format']}, tokenizer {dataset.tokenizer_sha256[:12]}, {dataset.vocab_size:,} ids"
    )
    table = Table("split", "documents", "tokens", "bytes of text", "bytes per token", "shards", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        per_token = f"{split.n_bytes / split.n_tokens:.3f}" if split.n_tokens else "-"
        counts = (split.n_documents, split.n_tokens, split.n_bytes)
        table.add_row(name, *(f"{count:,}" for count in counts), per_token, str(len(split.shards)))
    console.print(table)
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        if split.scored is not None and split.n_tokens:
            scored = sum(int(part.sum()) for part in split.scored.scan())
            console.print(f"{name}: conversations, {scored:,} of whose tokens are scored")


def _print_split(console: Any, name: str, split: "Split", tokenizer: "Tokenizer", windows: int) -> None:
    from myna.data.show import histogram, sample_split, window_text

    sample = sample_split(split, tokenizer.eot)
    part = "" if sample.n_ids >= split.n_tokens else f" (from {sample.n_ids:,} of its tokens, evenly spaced)"
    console.print(f"\n{name}: document lengths in tokens{part}")
    rows = histogram(sample.lengths)
    most = max((count for *_, count in rows), default=1)
    for low, high, count in rows:
        console.print(f"{low:>9,} to {high - 1:>9,}  {count:>9,} {'█' * round(BAR_WIDTH * count / most)}")
    console.print(f"\n{name}: most common tokens{part}")
    for token, times in sample.common:
        console.print(f"{token:>9}  {100 * times / sample.n_ids:>6.2f} %  {tokenizer.decode([token])!r}")
    windows = min(windows, split.n_tokens)
    for number in range(windows):
        start = split.n_tokens * number // windows
        text = window_text(split, start, WINDOW_TOKENS, tokenizer.eot, tokenizer.decode)
        console.print(f"\n{name}: tokens {start:,} to {min(start + WINDOW_TOKENS, split.n_tokens) - 1:,}")
        console.print(text, soft_wrap=True)
