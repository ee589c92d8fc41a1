"""A program for torchrun: `myna`, to which HellaSwag's official file is what OFFICIAL says: address, SHA-256, bytes."""

import dataclasses
import os
import sys

from myna.cli import main
from myna.evaluate import hellaswag

if __name__ == "__main__":
    url, sha256, n_bytes = os.environ["OFFICIAL"].split()
    hellaswag.OFFICIAL = dataclasses.replace(hellaswag.OFFICIAL, url=url, sha256=sha256, n_bytes=int(n_bytes))
    sys.exit(main(sys.argv[1:]))
