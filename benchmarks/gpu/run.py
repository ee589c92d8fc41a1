"""One part: its process, its time limit, and the record of what came of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpu.part import Part, Setting
from gpu.results import Record

GRACE_S = 20.0  # for a process that reached its time limit to end what it started
LONGEST_LINE = 300  # of an error, in characters


def run(part: Part, setting: Setting, out: Path) -> Record:
    """Runs a part to its end, to its time limit, or to its failure; what it writes lies under OUT/files."""
    record: Record = {"part": part.name, "command": part.command(setting)}
    if why := part.lacks(setting):
        return record | {"state": "skipped", "why": why}
    files = out / "files"
    files.mkdir(exist_ok=True)
    log = files / f"{part.name}.log"
    began = time.monotonic()
    with open(log, "wb") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-P", *part.arguments(setting)],
            stdout=subprocess.PIPE,
            stderr=complaints,
            stdin=subprocess.DEVNULL,
            cwd=files,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | dict(part.environment),
            start_new_session=True,  # so that all it starts can be ended
        )
        try:
            said, _ = process.communicate(timeout=part.limit_s)
        except subprocess.TimeoutExpired:
            said = None
            # First asked to end: torchrun's ranks are in groups of their own, and it ends them.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    record |= {"seconds": round(time.monotonic() - began, 1)}
    return record | outcome(process.returncode, said, log, part.limit_s)


def outcome(code: int, said: bytes | None, log: Path, limit_s: float) -> Record:
    """What a process that ended with `code` has come to.

    Args:
        said: its standard output; None where it was ended at its time limit.
    """
    if said is None:
        return {"state": "failed", "why": f"not done after {limit_s:.0f} s"}
    if code == 0:
        with contextlib.suppress(ValueError):
            return {"state": "done", "value": json.loads(said)}
        return {"state": "failed", "why": "what it printed is no JSON"}
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return {"state": "failed", "why": f"{how}: {last_line(log)}"}


def last_line(log: Path) -> str:
    """The last line that says something: an error's own, after its traceback."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    said = next((line for line in reversed(lines) if line), "it said nothing")
    return said if len(said) <= LONGEST_LINE else said[:LONGEST_LINE] + " …"
