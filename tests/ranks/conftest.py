"""Runs of several processes, started by torchrun, whose ranks a test can find and end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


class Launch:
    """A torchrun and its ranks.

    Args:
        program: a file that is run in place of the command `myna`.
    """

    def __init__(
        self,
        args: list[str],
        out: Path,
        env: dict[str, str],
        *,
        ranks: int,
        restarts: int = 0,
        program: str | None = None,
    ):
        self.out = out
        command = [*TORCHRUN, "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
        self.log = out.parent / f"{out.name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *([program] if program else ["-m", "myna"]), "train", *args, "--out", str(out)],
                env=env | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ranks(self) -> dict[int, int]:
        """Rank -> process id of those alive."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, KeyError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    pairs = (entry / "environ").read_bytes().split(b"\0")
                    values = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
                    found[int(values[b"RANK"])] = int(entry.name)
        return found

    def wait_for_step(self, step: int, seconds: float = 120) -> None:
        """Until a step's checkpoint is there."""
        path = self.out / "checkpoints" / f"step_{step:08d}"
        end = time.monotonic() + seconds
        while not path.exists():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def said(self) -> str:
        """What all of them wrote."""
        return self.log.read_text("utf-8", "replace")

    def end(self) -> None:
        """Nothing of it stays, stopped processes included."""
        for pid in [*self.ranks().values(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def launch(child_environment: dict[str, str]) -> Iterator[Callable[..., Launch]]:
    """Starts runs of several ranks, and ends what is left of them."""
    started: list[Launch] = []

    def start(args: list[str], out: Path, **options: Any) -> Launch:
        started.append(Launch(args, out, child_environment, **options))
        return started[-1]

    yield start
    for one in started:
        one.end()
