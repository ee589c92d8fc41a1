"""`myna report`: curves of one or more runs as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.errors import UsageError


@dataclass(frozen=True)
class Report:
    """Draw loss and HellaSwag against tokens, with GPT-2's and GPT-3's values where they apply."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = field(default=())
    """Run folders. Several share one picture."""
    out: Path | None = None
    """The PNG to write. Default: report.png in the run's folder; for several runs, report.png here."""


def main(args: Sequence[str]) -> None:
    """Runs `myna report`."""
    refuse_empty(args)
    call = parse(Report, args, command="report")
    if not call.runs:
        raise UsageError("no run named; give the folder of one or more: myna report runs/pydoc")
    from myna.evaluate.report import final_values, read_curves, report
    from myna.run import Run

    out = call.out or (Run(call.runs[0]).report_path if len(call.runs) == 1 else Path("report.png"))
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the picture is a PNG; give a name that ends in .png")
    report(call.runs, out)
    for path in call.runs:
        print(f"{path}: {final_values(read_curves(path))}")
    print(out)
