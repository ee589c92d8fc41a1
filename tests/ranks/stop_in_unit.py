"""`myna` of which some ranks get SIGTERM in their third unit of some work.

Used as a program, under torchrun: MODULE:NAME RANKS COMMAND. At its end each rank says how many units it began.
"""

import functools
import importlib
import os
import signal
import sys

from myna.train.machines.torchrun import process_environment

SIGNAL_IN = 3

if __name__ == "__main__":
    from myna.cli import entry

    module, name = sys.argv.pop(1).split(":")
    signalled, rank = sys.argv.pop(1).split(","), process_environment()["RANK"]
    *path, last = name.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    real, begun = getattr(owner, last), []

    def counted(*args, **options):
        begun.append(None)
        if len(begun) == SIGNAL_IN and rank in signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **options)

    setattr(owner, last, counted)
    try:
        entry()
    finally:
        print(f"rank {rank}: {len(begun)} units", flush=True)
