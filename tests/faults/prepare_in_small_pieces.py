"""A program for tests to start and kill: `myna prepare` with pieces so small that a small corpus takes many of them."""

import sys

from myna.cli import main
from myna.data import pieces, prepare

if __name__ == "__main__":
    pieces.PIECE_BYTES = prepare.PIECE_BYTES = int(sys.argv[1])
    prepare.JOURNAL_EVERY_S = 0.05
    sys.exit(main(["prepare", *sys.argv[2:]]))
