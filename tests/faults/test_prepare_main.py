"""Prepare from programs of every shape: no guard around the main module, no main module, fork, spawn, threads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CALL = """
from myna.data.prepare import prepare
from myna.data.sources import cut
from myna import Tokenizer
cut.PART_BYTES = 50_000
dataset = prepare([{source!r}], {out!r}, Tokenizer.bytes(), workers=2)
print("made", dataset.train.n_tokens)
"""
IN_A_CHILD = """
import multiprocessing, os
def work():
    exec(open({script!r}).read())
if __name__ == "__main__":
    child = multiprocessing.get_context({method!r}).Process(target=work)
    child.start()
    child.join()
    raise SystemExit(child.exitcode)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": f"text {n} " * 50}) + "\n" for n in range(500)))
    path = tmp_path / "call.py"
    path.write_text(CALL.format(source=str(source), out=str(tmp_path / "data")))
    return path


@pytest.mark.parametrize(
    "way", ["script", "stdin", "command", "module", "spawn", "fork", "forkserver", "exec"]
)
def test_it_works_however_the_program_was_started(script: Path, way: str, tmp_path: Path) -> None:
    text = None
    if way == "script":  # has no `if __name__ == "__main__"`: a multiprocessing child would run it again
        command = [str(script)]
    elif way == "stdin":  # as in a notebook, __main__ has no file
        command, text = ["-"], script.read_text()
    elif way == "command":
        command = ["-c", script.read_text()]
    elif way == "module":
        command = ["-m", "call"]
    elif way == "exec":  # in a thread, as in a server
        lines = f"exec(open({str(script)!r}).read())"
        command = [
            "-c",
            f"import threading; t = threading.Thread(target=exec, args=({lines!r},)); t.start(); t.join()",
        ]
    else:
        (tmp_path / "child.py").write_text(IN_A_CHILD.format(script=str(script), method=way))
        command = [str(tmp_path / "child.py")]
    done = subprocess.run(
        [sys.executable, *command],
        input=text,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("made ")
    assert done.stdout.count("made") == 1
    assert (tmp_path / "data" / "dataset.json").exists()


def test_a_module_beside_the_caller_does_not_get_into_the_workers(script: Path, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
