"""`scripts/gpu` puts the folder of the benchmarks on the path; so do its tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
