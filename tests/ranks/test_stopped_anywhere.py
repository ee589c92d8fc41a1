"""SIGTERM outside of training's steps, where the ranks don't agree on one: all end with its code, and none waits."""

import json
import re
import subprocess
import sys

import pytest
import torch

from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.run import Run
from myna.text.tokenizer import Tokenizer

from . import stop_before_step_1, stop_in_unit

CPU = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def launched(tmp_path, child_environment):
    """Runs a program of two ranks to its end; what they said, and torchrun with them."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def launch(*args: object) -> str:
        done = subprocess.run(
            [*torchrun, *map(str, args)],
            cwd=tmp_path,
            env=child_environment | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 1
        return done.stdout

    return launch


def codes(said: str) -> set[str]:
    """The exit codes that torchrun tells of the ranks."""
    return set(re.findall(r"exitcode  : (-?\d+)", said))


@pytest.mark.parametrize(
    "signalled", ["1", pytest.param("0", marks=pytest.mark.slow), pytest.param("0,1", marks=pytest.mark.slow)]
)
def test_before_step_1(launched, tmp_path, signalled):
    """Rank 1 waits in a collective for rank 0, which prepares: there Python answers no signal."""
    said = launched(stop_before_step_1.__file__, tmp_path, signalled, "train", "pydoc", "--device", "cpu")
    stops = [line for line in said.splitlines() if line.startswith("myna train: stopped by SIGTERM")]
    assert len(stops) == 2, said
    assert codes(said) == {"75"}, said
    assert said.count("piece ") < stop_before_step_1.PIECES, said
    assert [path.name for path in tmp_path.iterdir()] == ["under_way"]


@pytest.mark.slow
def test_scoring(launched, tmp_path):
    """Ranks of `myna eval` share nothing: each scores all of it, and ends by itself."""
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, vocab_size=257))
    network.save_pretrained(tmp_path / "model", Tokenizer.bytes())
    rows = [{"ctx": f"{n} men sit on a wall", "label": 0, "endings": list("abcd")} for n in range(300)]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call = ("eval", tmp_path / "model", "--task", "hellaswag", "--data", tmp_path / "h.jsonl", *CPU)
    said = launched(stop_in_unit.__file__, "myna.model.decoder:Decoder.logits", "0,1", *call)
    assert said.count("myna eval: stopped by SIGTERM") == 2, said
    assert codes(said) <= {"143", "-15"}, said  # torchrun ends a rank that is still on its way out
    assert re.findall(r"rank \d: (\d+) units", said) == [str(stop_in_unit.SIGNAL_IN)] * 2


@pytest.mark.slow
def test_in_a_sample_on_the_way(launched, tmp_path, small_run):
    """Rank 0 writes the sample alone; both end before its next token."""
    plan = ("--steps", "4", "--sample-every", "2", "--out", tmp_path / "run")
    said = launched(stop_in_unit.__file__, "myna.generate.engine:choose", "0", "train", *small_run, *plan)
    stops = [line for line in said.splitlines() if "after step 0, which is saved" in line]
    assert len(stops) == 2, said
    assert codes(said) == {"75"}, said
    assert f"rank 0: {stop_in_unit.SIGNAL_IN} units" in said
    assert "rank 1: 0 units" in said
    assert Run(tmp_path / "run").samples() == []
