"""`myna report`: the curves of one or more runs as a picture and a page, and a verdict in words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.errors import UsageError
from myna.store.address import is_url, without_secrets

if TYPE_CHECKING:
    from myna.evaluate.curves import Curves

COLUMNS = 110


@dataclass(frozen=True)
class Report:
    """Draw a run's curves beside those of GPT-2, GPT-3 and llm.c where they apply, and say how the run stands."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = field(default=())
    """Run folders, or the URLs that `myna train --copy-to` had. Several share one picture and one page."""
    out: Path | None = None
    """The picture (.png) or the page (.html) to write; the other one lies beside it. Default: report.png in the run's
    folder; for several runs, or a URL, report.png here."""
    watch: bool = False
    """Draw again every few seconds while a run goes on, until no process trains in any of them. For folders alone."""


def main(args: Sequence[str]) -> None:
    """Runs `myna report`."""
    refuse_empty(args)
    call = parse(Report, args, command="report")
    if not call.runs:
        raise UsageError("no run named; give the folder of one or more: myna report runs/pydoc")
    from myna.evaluate.report import page_beside, report, watch
    from myna.store.here import here, results_beside
    from myna.store.records import fetch_records

    url = next(filter(is_url, call.runs), None)
    if call.watch and url is not None:
        raise UsageError(
            f"--watch sees whether a process of this machine trains, and {without_secrets(url)} is on another store; "
            "leave --watch out"
        )
    runs = [here(run, fetch_records) for run in call.runs]
    out = call.out or (results_beside(call.runs[0], "report.png") if len(runs) == 1 else Path("report.png"))
    if out.suffix.lower() not in (".png", ".html"):
        raise UsageError(f"--out {out}: give a name that ends in .png (the picture) or .html (the page)")
    if out.suffix.lower() == ".html":
        out = out.with_suffix(".png")
    if call.watch:
        watch(runs, out, lambda drawn: show_briefly(drawn, page_beside(out)))
    show(report(runs, out))
    print(out)
    print(page_beside(out))


def show(drawn: Sequence["Curves"]) -> None:
    """The last values of each run, and its verdict."""
    from myna.evaluate.curves import final_values
    from myna.evaluate.verdict import verdict
    from myna.store.here import address_of

    for curves in drawn:
        print(f"{address_of(curves.path)}: {final_values(curves)}")
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
