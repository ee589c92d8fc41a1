"""`torchrun ... -m myna bench`: our step on several ranks, and what their communication takes of it."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from myna.bench.measure import Plan
from myna.commands.out import folder_of_results

FILE = "ranks.json"


def run(plan: Plan, environ: Mapping[str, str], out: Path, *, json: bool) -> None:
    """Measures on every rank; rank 0 alone writes the file, and prints the table or the JSON."""
    from myna.bench.measure import Watcher
    from myna.bench.progress import shown
    from myna.bench.ranks import WAYS, measure_ranks
    from myna.bench.ranks_table import print_ranks
    from myna.errors import RankError
    from myna.files import json_bytes, write_atomic
    from myna.train.machines.ranks import start_ranks
    from myna.train.machines.watch import of_a_collective

    with contextlib.ExitStack() as ending, start_ranks(environ, plan.device) as ranks:

        def make_folder() -> str:
            ending.enter_context(folder_of_results(out, (FILE,)))
            return str(out)

        ranks.main_does(make_folder)
        watcher = ending.enter_context(shown(len(WAYS), plan.steps)) if ranks.is_main else Watcher()
        try:
            found = measure_ranks(plan, ranks, watcher)
        except RuntimeError as error:
            if not of_a_collective(error):
                raise
            lost = RankError("another rank was lost while this one measured; its own line says why")
            lost.told = not ranks.is_main
            raise lost from error
        if ranks.is_main:
            write_atomic(out / FILE, json_bytes(found))
            if json:
                sys.stdout.buffer.write(json_bytes(found))
            else:
                print_ranks(found, out / FILE)
