"""The ways to compute attention as two tables: time and memory over the length of the sequences."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from myna.bench.table import PIPED_WIDTH
from myna.progress import counted


def print_attention(found: dict[str, Any], files: Sequence[Path]) -> None:
    """Prints what was measured, both tables, and where the files lie."""
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, width=None if terminal else PIPED_WIDTH)
    for line in headlines(found):
        console.print(line, soft_wrap=True)
    for title, cell in (("ms, forward and backward", _ms), ("memory", _memory)):
        console.print()
        table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
        table.add_column(title, no_wrap=True)
        for length in found["lengths"]:
            table.add_column(f"T = {length:,}", justify="right")
        for way in found["ways"]:
            table.add_row(way["title"], *(cell(record) for record in way["lengths"]))
        console.print(table)
    console.print()
    for line in [*notes(found), "  ".join(map(str, files))]:
        console.print(line, soft_wrap=True)


def headlines(found: dict[str, Any]) -> list[str]:
    """What was measured, and on what."""
    machine, dtype = found["machine"], dtype_of(found)
    threads = f", {counted(machine['threads'], 'thread')}" if machine["device"] == "cpu" else ""
    return [
        f"attention of {found['recipe']}: {counted(found['n_head'], 'head')} of {found['n_embd'] // found['n_head']}, "
        f"{found['tokens']:,} tokens at once, {dtype} · {machine['name']}{threads}, torch {machine['torch']}"
    ]


def dtype_of(found: dict[str, Any]) -> str:
    """What all ways were computed in."""
    return next((way["dtype"] for way in found["ways"] if "dtype" in way), "not measured")


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader of the tables must know."""
    lines = [
        "memory: the most that was held above what the process held before, with queries, keys and values"
    ]
    ways = {way["name"]: way for way in found["ways"]}
    if ways["ours"].get("is_pytorchs"):
        lines.append("ours is PyTorch's call here; its own blocks are for bf16 on a CPU")
    differences = [f"{way['title']} {way['difference']:.0e}" for way in found["ways"] if "difference" in way]
    if differences:
        lines.append(
            f"largest difference from the four operations in fp32, T = {found['lengths'][0]:,}: "
            + ", ".join(differences)
        )
    for way in found["ways"]:
        lengths = [f"{r['length']:,}" for r in way["lengths"] if "skipped" in r]
        if lengths:
            why = next(r["skipped"] for r in way["lengths"] if "skipped" in r)
            lines.append(f"skipped: {way['title']} at T = {', '.join(lengths)}: {why}")
    return lines


def _cell(write: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    return lambda record: "skipped" if "skipped" in record else write(record)


_ms = _cell(lambda record: f"{record['ms']:,.1f}")
_memory = _cell(lambda record: f"{record['memory_bytes'] / 1e6:,.0f} MB")
