"""The ladder as a table: in colour on a terminal, plain when piped."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from myna.progress import counted

UNSTEADY = 0.8  # of the better of two measurements of one thing
PIPED_WIDTH = 200  # columns, so that nothing is folded where there is no window


def print_table(ladder: dict[str, Any], out: Path) -> None:
    """Prints what was measured, the rungs, why some were skipped, and where the files lie."""
    columns = ("rung", "ms/step", "tokens/s", "of limit", "ratio", "peak memory", "first step")
    console, table = begin_table(headlines(ladder), columns)
    for record in ladder["rungs"]:
        style = "bold" if record["name"] == "ours" else "dim" if "skipped" in record else None
        table.add_row(record["title"], *cells(record), style=style)
    console.print(table)
    for line in [*footnotes(ladder), f"{out / 'ladder.json'}  {out / 'ladder.png'}"]:
        console.print(line, soft_wrap=True)


def begin_table(lines: Sequence[str], columns: Sequence[str]) -> tuple[Console, Table]:
    """Prints the lines above a table; returns where it will be printed, and the table without rows.

    Args:
        columns: their names. The first names the rows, the others hold numbers.
    """
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, width=None if terminal else PIPED_WIDTH)
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return console, table


def headlines(ladder: dict[str, Any]) -> list[str]:
    """What was measured, and on what."""
    model, machine = ladder["model"], ladder["machine"]
    batch = f"{ladder['micro_batch']} x {ladder['sequence_length']}"
    if ladder["accumulate"] > 1:
        batch = f"{ladder['accumulate']} x ({batch})"
    what = f" ({model['network']} with {model['optimizer']})" if ladder["why_only_ours"] else ""
    layers = counted(model["n_layer"], "layer")
    threads = f", {counted(machine['threads'], 'thread')}" if machine["device"] == "cpu" else ""
    return [
        f"{model['recipe']}{what}, {layers}, {batch} tokens a step · {machine['name']}{threads}, "
        f"torch {machine['torch']}",
        f"matrix limit: {machine['matrix_flops'] / 1e12:.2f} TFLOP/s ({machine['matrix_about']})",
    ]


def cells(record: dict[str, Any]) -> list[str]:
    """A rung's figures as a row has them; all empty for one that was skipped."""
    if "skipped" in record:
        return ["skipped", *[""] * 5]
    return [
        f"{record['ms_per_step']:,.1f}",
        f"{record['tokens_per_second']:,.0f}",
        f"{100 * record['share_of_limit']:.1f}%",
        f"{record['ratio']:.2f}",
        f"{record['peak_memory_bytes'] / 1e9:.2f} GB",
        f"{record['first_step_seconds']:.1f} s",
    ]


def remarks(ladder: dict[str, Any]) -> list[str]:
    """Why there is only our rung, and what the update of the weights takes of its step."""
    lines = [f"only ours: {why}"] if (why := ladder["why_only_ours"]) else []
    for record in ladder["rungs"]:
        if parts := record.get("parts"):
            listed = [
                f"{'within it ' if number else ''}{name} {part['ms_per_step']:,.1f} ms ({part['share_of_step']:.1%})"
                for number, (name, part) in enumerate(parts.items())
            ]
            lines.append(f"{record['title']}: of each step, {', '.join(listed)}")
    return lines


def footnotes(ladder: dict[str, Any]) -> list[str]:
    """Why rungs were skipped, what else they went without, and whether all computed the same."""
    notes = remarks(ladder)
    measured = [record for record in ladder["rungs"] if "skipped" not in record]
    for record in ladder["rungs"]:
        if "skipped" in record:
            notes.append(f"skipped: {record['title']}: {record['skipped']}")
            continue
        if record["compiler_failure"]:
            notes.append(f"{record['title']}: not compiled: {record['compiler_failure']}")
        if count := record["skipped_updates"]:
            notes.append(
                f"{record['title']}: fp16's scaler left {counted(count, 'update')} out, since a gradient overflowed; "
                "so the loss is that many updates behind"
            )
    before, after = ladder["matrix_flops_before_and_after"]
    if min(before, after) < UNSTEADY * max(before, after):
        notes.append(
            f"the machine was not steady: its matrix limit was {before / 1e12:.2f} TFLOP/s before the rungs and "
            f"{after / 1e12:.2f} after; measure again while nothing else runs"
        )
    first, last = ([record[key] for record in measured] for key in ("first_loss", "last_loss"))
    if len(measured) > 1:
        notes.append(
            f"the rungs' losses differ by {max(first) - min(first):.0e} at most at the first step, "
            f"by {max(last) - min(last):.0e} at the last"
        )
    return notes
