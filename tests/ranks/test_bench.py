"""`torchrun ... -m myna bench`: that the ranks find each other, and that one of them speaks."""

import json
import subprocess
import sys

TINY = "--recipe shakespeare-char --layers 1 --micro-batch 2 --sequence-length 16 --steps 1 --device cpu"


def test_two_ranks_are_measured_and_rank_0_alone_writes(tmp_path, child_environment):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "myna", "bench", *TINY.split(), "--out", str(tmp_path / "out"), "--json"],
        env=child_environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # one object: the other rank printed nothing
    assert json.loads((tmp_path / "out" / "ranks.json").read_text()) == found
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ranks.json"]
    assert (found["ranks"], found["tokens_per_step"], len(found["peak_memory_bytes_by_rank"])) == (2, 32, 2)
    for way in ("together", "apart"):
        measured = found[way]
        assert len(measured["step_seconds"]) == 1
        assert measured["tokens_per_second"] == 2 * measured["tokens_per_second_of_a_rank"]
    assert found["communication_share"] < 1
