"""The tests read your files, beside them, or those in the folder that BPE_SOLUTION names."""

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
sys.path[:0] = [os.environ.get("BPE_SOLUTION", HERE), HERE]
