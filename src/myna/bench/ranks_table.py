"""What several ranks reach, as a table of two rows: with their gradients summed, and each with its own."""

from pathlib import Path
from typing import Any

from myna.bench.table import begin_table, headlines
from myna.progress import counted

ROWS = {"together": "gradients summed", "apart": "each its own"}


def print_ranks(found: dict[str, Any], path: Path) -> None:
    """Prints what was measured, both rows, what communication takes, and where the file lies."""
    columns = (counted(found["ranks"], "rank"), "ms/step", "tokens/s", "a rank", "of limit")
    console, table = begin_table(headlines(found), columns)
    for way, title in ROWS.items():
        table.add_row(title, *cells(found[way]))
    console.print(table)
    for line in [*notes(found), str(path)]:
        console.print(line, soft_wrap=True)


def cells(way: dict[str, Any]) -> list[str]:
    """The figures of a row."""
    return [
        f"{way['ms_per_step']:,.1f}",
        f"{way['tokens_per_second']:,.0f}",
        f"{way['tokens_per_second_of_a_rank']:,.0f}",
        f"{100 * way['share_of_limit']:.1f}%",
    ]


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    most = max(found["peak_memory_bytes_by_rank"])
    ms, share = found["communication_ms"], found["communication_share"]
    lines = [
        "every rank computes so many tokens a step; tokens/s are those of all ranks",
        f"communication takes {ms:,.1f} ms of a step ({share:.1%})"
        if ms > 0
        else f"communication takes no time that shows: the steps without it took {-ms:,.1f} ms more",
        f"peak memory of the rank that took most: {most / 1e9:.2f} GB",
    ]
    if found["compiler_failure"]:
        lines.append(f"not compiled: {found['compiler_failure']}")
    return lines
