"""`myna report`: the curves of runs as a picture, and beside it a page with the verdict."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from myna.errors import DataError
from myna.evaluate.curves import Curves, NothingRecordedError, read_all
from myna.evaluate.panels import panels
from myna.evaluate.picture import COLOURS, picture
from myna.evaluate.report_page import report_page
from myna.files import write_atomic
from myna.run import Run

POLL_S = 3.0
RELOAD_S = 5


def report(
    runs: Sequence[Path],
    out: Path,
    *,
    rows: Mapping[str, Sequence[Path]] | None = None,
    reload_s: int | None = None,
) -> list[Curves]:
    """Writes the picture of one or more runs, and the page beside it; each whole or not at all.

    More runs than there are colours get a small panel each.

    Args:
        rows: which runs share a panel, by its name; all of them together are `runs`. Without it each has its own.
        out: the PNG. The page has the same name and the ending .html.
        reload_s: seconds after which the page reads itself anew, while the runs go on.
    Returns:
        what was drawn.
    Raises:
        DataError: a folder is no run, or has recorded nothing. OutputError: `out` can't be written.
    """
    if not runs:
        raise DataError("no run to draw; give the folder of at least one")
    drawn = read_all(runs)
    page = report_page(drawn, reload_s=reload_s)
    if len(drawn) <= len(COLOURS):
        image = picture(drawn)
    else:
        read = dict(zip(runs, drawn, strict=True))
        rows = rows or {curves.name: [path] for path, curves in read.items()}
        image = panels({name: [read[path] for path in paths] for name, paths in rows.items()})
    page.write(page_beside(out))
    # The picture comes last: that it is there says that the report is whole.
    write_atomic(out, image)
    return drawn


def page_beside(out: Path) -> Path:
    """The page that belongs to a picture."""
    return out.with_suffix(".html")


def watch(runs: Sequence[Path], out: Path, show: Callable[[Sequence[Curves]], None]) -> None:
    """Draws the report again whenever a run has recorded more, while a process trains in any of them.

    What comes after the last look is left to a last `report`. A run that has no loss yet is waited for.

    Args:
        show: told of what was drawn.
    Raises:
        as `report`.
    """
    seen: object = None
    while any(Run(path).is_written()[0] for path in runs):
        if (now := [_extent(path) for path in runs]) != seen:
            with contextlib.suppress(NothingRecordedError):
                show(report(runs, out, reload_s=RELOAD_S))
            seen = now
        time.sleep(POLL_S)


def _extent(path: Path) -> tuple[int, int]:
    """How long a run's records are, in bytes."""
    run = Run(path)
    return _size(run.metrics_path), _size(run.samples_path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
