"""`myna` whose rank 0 prepares without end, while the other rank waits for it; some ranks then get SIGTERM.

Used as a program, under torchrun: FOLDER RANKS COMMAND. Each piece of the preparation that begins is a line on stdout.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from myna.commands import train_data
from myna.train.machines.torchrun import process_environment

PIECES, SIGNAL_IN = 600, 3

if __name__ == "__main__":
    from myna.cli import entry

    under_way = Path(sys.argv.pop(1)) / "under_way"
    signalled, rank = sys.argv.pop(1).split(","), process_environment()["RANK"]

    def prepare(*_: object) -> None:
        for number in range(1, PIECES + 1):
            print(f"piece {number}", flush=True)
            if number == SIGNAL_IN:
                under_way.touch()
            time.sleep(0.1)

    def send() -> None:
        while not under_way.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    train_data.prepare_own = prepare
    if rank in signalled:
        threading.Thread(target=send, daemon=True).start()
    entry()
