"""A sweep that is killed and called again ends with the table of one that was not, but for the times."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FIELDS = """
    n-layer=1 n-head=2 n-embd=16 block-size=16 sequence-length=16 batch-tokens=64 warmup-steps=0 compile=false
    average-decay=0 steps=40 eval-every=20 sample-every=0 checkpoint-every=5 learning-rate=1e-3,2e-3
"""


def call(small_dataset: Path, out: Path) -> list[str]:
    options = [
        "--data",
        small_dataset,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--threads",
        "1",
        "--out",
        out,
    ]
    return [sys.executable, "-m", "myna", "sweep", "shakespeare-char", *FIELDS.split(), *map(str, options)]


def without_times(table: str) -> list[list[str]]:
    return [[cell for n, cell in enumerate(line.split("|")) if n != 7] for line in table.splitlines()]


def steps_made(out: Path) -> int:
    records = [
        json.loads(line) for path in out.glob("*=*/metrics.jsonl") for line in path.read_text().splitlines()
    ]
    return sum("train_loss" in record for record in records)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_two_drawn_steps(small_dataset: Path, tmp_path: Path, ending: signal.Signals) -> None:
    subprocess.run(call(small_dataset, tmp_path / "whole"), check=True, capture_output=True, timeout=300)
    table = (tmp_path / "whole" / "sweep.md").read_text()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "sweep.json").write_bytes((tmp_path / "whole" / "sweep.json").read_bytes())
    for step in sorted(random.Random(int(ending)).sample(range(1, 79), 2)):
        with subprocess.Popen(
            call(small_dataset, tmp_path / "again"), start_new_session=True, stdout=subprocess.DEVNULL
        ) as process:
            until = time.monotonic() + 120
            while steps_made(tmp_path / "again") < step and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.002)
            if process.poll() is None:
                os.kill(process.pid, ending)  # SIGKILL leaves the run that it had begun to go on by itself
    subprocess.run(call(small_dataset, tmp_path / "again"), check=True, capture_output=True, timeout=300)
    assert without_times((tmp_path / "again" / "sweep.md").read_text()) == without_times(table)
