"""A save ended at every one of its operations; and every write of it is one that can be ended."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "crash_points.py"
MORE = (["power"], ["kill", "damaged"], ["power", "damaged"])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: thousands of flushes to a disk take a minute."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.mark.parametrize(
    "how",
    [["kill"], *(pytest.param(how, marks=pytest.mark.slow) for how in MORE)],
    ids="-".join,
)
def test_ended_at_any_operation_the_newest_sound_checkpoint_loads(how, folder):
    done = subprocess.run([sys.executable, PROGRAM, folder, *how], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["exit"] == 0
    assert found["points"] == sum(found["found"].values()) == sum(found["operations"].values()) > 100
    assert set(found["found"]) == {"2", "3"}  # the one before, or the new one: both were met
    assert {"open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir"} <= set(
        found["operations"]
    )


def test_no_write_of_a_save_goes_past_the_counted_functions(tmp_path):
    """Python's audit hook sees every open; those that the counted `os.open` did not make would show a mode."""
    code = f"""
import sys
sys.argv = ["x"]
sys.path.insert(0, {str(PROGRAM.parent)!r})
import crash_points as c
from pathlib import Path
c.TOKENIZER = c.Tokenizer.bytes()
folder = Path({str(tmp_path)!r})
past, through = [], 0
def hook(event, args):
    global through
    if event == "open" and str(args[0]).startswith(str(folder)):
        if args[1] is None:
            through += bool(args[2] & 0o100)
        elif set(args[1]) & set("wax+"):
            past.append(args)
sys.addaudithook(hook)
for step in (1, 2, 3):
    c.save(folder, step)
print(past, through)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 24"  # eight files, three times
    names = {path.name for path in (tmp_path / "step_00000003").iterdir()}
    assert len(names) == 8
    assert os.path.getsize(tmp_path / "step_00000003" / "model.safetensors") > 1000
