"""`myna` with a second network and a second optimizer: what a user's own script would be. Runs under torchrun, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import momentum  # noqa: F401
import rotary  # noqa: F401

from myna.cli import entry

if __name__ == "__main__":
    entry()
