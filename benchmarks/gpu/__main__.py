"""`python -m gpu`, as `scripts/gpu` calls it."""

import sys

from gpu.command import main

sys.exit(main(sys.argv[1:]))
