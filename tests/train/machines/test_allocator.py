import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from myna.train.machines.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
def use():
    torch.empty(1 << 26, dtype=torch.uint8).fill_(1)
for _ in range(10):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_kept_memory_costs_no_page_faults():
    """After the first few, 20 buffers of 64 MB: 16,384 pages each time, or none."""
    faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True
            ).stdout
        )
        for mode in ("give back", "keep")
    }
    assert faults["keep"] * 10 < faults["give back"]
