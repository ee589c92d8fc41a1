"""`myna bench --attention`: ways to compute attention, over the length of the sequences."""

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from myna.bench.attention import WAYS, AttentionPlan, measure_attention
from myna.commands.out import folder_of_results
from myna.errors import UsageError
from myna.settings import DeviceName
from myna.train.recipe import Recipe

FILES = ("attention.json", "attention.png")
LENGTHS = "256,512,1024,2048,4096"
LONGEST = 65_536


@dataclass(frozen=True)
class Call:
    """What `myna bench --attention` was asked; see `Bench`."""

    recipe: Recipe
    lengths: str | None
    steps: int
    device: DeviceName
    out: Path
    json: bool


def run(call: Call) -> None:
    """Measures, writes both files, and prints the tables or the JSON."""
    plan = plan_of(call)
    from myna.files import json_bytes, write_atomic
    from myna.progress import Progress

    progress = Progress("bench", 1 + len(WAYS), counted=False, line_every_s=math.inf)
    with folder_of_results(call.out, FILES), progress:
        found = measure_attention(plan, lambda title: progress.advance(1, title))
    from myna.bench.attention_picture import attention_picture
    from myna.bench.attention_table import print_attention

    paths = [call.out / name for name in FILES]
    for path, content in zip(paths, (json_bytes(found), attention_picture(found)), strict=True):
        write_atomic(path, content)
    if call.json:
        sys.stdout.buffer.write(json_bytes(found))
    else:
        print_attention(found, paths)


def plan_of(call: Call) -> AttentionPlan:
    """
    Raises:
        UsageError: a number that cannot be.
    """
    if call.steps < 1:
        raise UsageError(f"--steps is {call.steps}; give 1 or more")
    recipe, lengths = call.recipe, lengths_of(call.lengths or LENGTHS)
    return AttentionPlan(
        recipe.name, recipe.n_head, recipe.n_embd, lengths, call.steps, call.device, recipe.precision
    )


def lengths_of(text: str) -> list[int]:
    """
    >>> lengths_of("1024,256,256")
    [256, 1024]

    Raises:
        UsageError: one is no whole number, or out of bounds.
    """
    found = set()
    for word in map(str.strip, text.split(",")):
        if not (re.fullmatch("[0-9]{1,6}", word) and 1 <= int(word) <= LONGEST):
            raise UsageError(
                f"--lengths has {word[:20]!r}; give whole numbers from 1 to {LONGEST:,} with commas between"
            )
        found.add(int(word))
    return sorted(found)
