"""`myna data show`: look before you train."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from myna.commands import parse
from myna.errors import DataError

if TYPE_CHECKING:
    from myna.data.split import Dataset, Split
    from myna.text.tokenizer import Tokenizer

BAR_WIDTH = 40
WINDOW_TOKENS = 64


@dataclass(frozen=True)
class Data:
    """Print what a prepared dataset holds; with --verify, hash all of it."""

    action: Annotated[Literal["show"], tyro.conf.Positional]
    """What to do: show."""
    dir: Annotated[Path, tyro.conf.Positional]
    """The dataset's folder."""
    verify: bool = False
    """Read every shard and compare its SHA-256, whatever was verified before."""
    tokenizer: str | None = None
    """gpt2, bytes, or a tokenizer's directory or file. Default: the dataset's own; other projects' files need it."""
    windows: int = 3
    """How many windows to print as text."""


def main(args: Sequence[str]) -> None:
    """Runs `myna data`."""
    call = parse(Data, args, command="data")
    from rich.console import Console

    from myna.data.other_projects import remark_on
    from myna.data.shards import open_dataset, verify_shards
    from myna.text.tokenizer import Tokenizer

    named = Tokenizer.open(call.tokenizer) if call.tokenizer else None
    dataset = open_dataset(call.dir, verify=False, tokenizer=named)
    tokenizer = named or Tokenizer.load(dataset.path)
    dataset = open_dataset(call.dir, verify=False, tokenizer=tokenizer)
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
    console.print(f"{dataset.path}: {', '.join(map(str, made_from))}", soft_wrap=True)
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
