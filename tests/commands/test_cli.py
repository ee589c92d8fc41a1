import subprocess
import sys

import pytest

MYNA = [sys.executable, "-m", "myna"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("args", [["tokenizer", "--help"], ["--version"]])
def test_an_output_that_is_full_is_a_line(args, child_environment):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*MYNA, *args], stdout=full, stderr=subprocess.PIPE, text=True, env=child_environment
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot write the output: No space left on device" in done.stderr


def test_without_an_output_the_work_is_done(child_environment):
    command = f"exec '{sys.executable}' -m myna --version >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, env=child_environment)
    assert (done.returncode, done.stderr) == (0, "")
