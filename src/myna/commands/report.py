"""`myna report`: the curves of one or more runs as a picture and a page, and a verdict in words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.errors import UsageError

if TYPE_CHECKING:
    from myna.evaluate.curves import Curves

COLUMNS = 110


@dataclass(frozen=True)
class Report:
    """Draw a run's curves beside those of GPT-2, GPT-3 and llm.c where they apply, and say how the run stands."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = field(default=())
    """Run folders. Several share one picture and one page."""
    out: Path | None = None
    """The picture (.png) or the page (.html) to write; the other one lies beside it. Default: report.png in the run's
    folder; for several runs, report.png here."""
    watch: bool = False
    """Draw again every few seconds while a run goes on, until no process trains in any of them."""


def main(args: Sequence[str]) -> None:
    """Runs `myna report`."""
    refuse_empty(args)
    call = parse(Report, args, command="report")
    if not call.runs:
        raise UsageError("no run named; give the folder of one or more: myna report runs/pydoc")
    from myna.evaluate.report import page_beside, report, watch
    from myna.run import Run

    out = call.out or (Run(call.runs[0]).report_path if len(call.runs) == 1 else Path("report.png"))
    if out.suffix.lower() not in (".png", ".html"):
        raise UsageError(f"--out {out}: give a name that ends in .png (the picture) or .html (the page)")
    if out.suffix.lower() == ".html":
        out = out.with_suffix(".png")
    if call.watch:
        watch(call.runs, out, lambda drawn: show_briefly(drawn, page_beside(out)))
    show(report(call.runs, out))
    print(out)
    print(page_beside(out))


def show(drawn: Sequence["Curves"]) -> None:
    """The last values of each run, and its verdict."""
    from myna.evaluate.curves import final_values
    from myna.evaluate.verdict import verdict

    for curves in drawn:
        print(f"{curves.path}: {final_values(curves)}")
        for finding in verdict(curves):
            causes = f" Usual causes: {'; '.join(finding.causes)}." if finding.causes else ""
            text = f"{finding.mark}. {finding.text}{causes}"
            print(
                textwrap.fill(
                    text, COLUMNS, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
                )
            )


def show_briefly(drawn: Sequence["Curves"], page: Path) -> None:
    """A line for each run as it goes on."""
    from myna.evaluate.curves import final_values

    for curves in drawn:
        print(f"{curves.name}: step {curves.last_step:,}, {final_values(curves)} -> {page}", flush=True)
