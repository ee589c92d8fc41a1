"""results.jsonl: a line for each part that was tried. The last line of a part counts."""

import json
from pathlib import Path
from typing import Any

NAME = "results.jsonl"

Record = dict[str, Any]  # part, command, state (done, failed, skipped), why or value, seconds


def read(out: Path) -> dict[str, Record]:
    """The latest record of each part. A line that a crash cut is left out."""
    found: dict[str, Record] = {}
    path = out / NAME
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found[record["part"]] = record
    return found


def append(out: Path, record: Record) -> None:
    """Adds a line."""
    with open(out / NAME, "ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # a crash cut the last line: ours starts anew
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")
