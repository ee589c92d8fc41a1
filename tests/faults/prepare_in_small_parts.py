"""A program for tests to start and kill: `myna prepare` with parts so small that a small corpus takes many of them."""

import sys

from myna.cli import main
from myna.data.prepare import dataset
from myna.data.sources import cut

if __name__ == "__main__":
    cut.PART_BYTES = int(sys.argv[1])
    dataset.JOURNAL_EVERY_S = 0.05
    sys.exit(main(["prepare", *sys.argv[2:]]))
