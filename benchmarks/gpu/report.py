"""results.md: every part in a table, measured, failed, skipped or not measured. Never an estimate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu.part import Part, Setting
from gpu.results import Record
from gpu.sections import SECTIONS, Section

NAME = "results.md"


def write(out: Path, setting: Setting, records: Mapping[str, Record]) -> None:
    """Writes the file anew."""
    (out / NAME).write_text(text(setting, records), "utf-8")


def text(setting: Setting, records: Mapping[str, Record]) -> str:
    """The whole page, which may stand below a heading of docs/performance.md."""
    lines = [headline(setting, records)]
    for section in SECTIONS:
        lines += ["", f"### {section.title}", ""]
        if section.note:
            lines += [section.note, ""]
        lines += table(section, setting, records)
    return "\n".join(lines) + "\n"


def headline(setting: Setting, records: Mapping[str, Record]) -> str:
    """What was measured on."""
    if setting.tiny:
        return "**Tiny networks on a CPU, to try the script itself: these figures say nothing.**"
    record = records.get("machine", {})
    if record.get("state") != "done":
        return "By `scripts/gpu`, each part in a process of its own."
    value = record["value"]
    return (
        f"By `scripts/gpu`, each part in a process of its own, on an {value['gpu']}, {value['cores']} cores of a "
        f"{value['processor']}, torch {value['torch']}."
    )


def table(section: Section, setting: Setting, records: Mapping[str, Record]) -> list[str]:
    """A section's lines, each row as wide as the table."""
    width = len(section.columns)
    lines = [row(section.columns, width), "|" + "---|" * width]
    for part in section.parts:
        lines += [row(cells, width) for cells in rows(section, part, setting, records.get(part.name))]
    return lines


def rows(section: Section, part: Part, setting: Setting, record: Record | None) -> list[list[str]]:
    """A part's rows: its figures, or in one row why there are none."""
    if record is None or record["command"] != part.command(setting):
        return [[part.title, f"not measured: `scripts/gpu --part {part.name}`"]]
    if record["state"] != "done":
        return [[part.title, f"{record['state']}: {record['why']}"]]
    return list(section.rows(part.title, record["value"]))


def row(cells: Sequence[str], width: int) -> str:
    """
    >>> row(["a | b", "two\\nlines"], 3)
    '| a \\\\| b | two lines | |'
    """
    plain = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    padded = [*plain, *[""] * (width - len(plain))]
    return "|" + "|".join(f" {cell} " if cell else " " for cell in padded) + "|"
