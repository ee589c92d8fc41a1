"""This tree and the one before networks became exchangeable compute the same numbers, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("same_numbers.py")
NOTHING_TO_COMPARE = 3


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", str(SCRIPT), *options], capture_output=True, text=True)


@pytest.mark.slow
def test_every_number_is_the_same():
    done = run()
    if done.returncode == NOTHING_TO_COMPARE:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_comparison_notices_a_tiny_change():
    done = run("--self-test")
    assert done.returncode == 0, done.stdout + done.stderr
