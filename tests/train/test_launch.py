"""The scripts of training under launch/: what they call, and the price they state."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from myna.model.network import network_kind
from myna.model.weights import build_without_memory
from myna.recipes import named

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("gpt2-*"))
GPUS = {"gpt2-124m": 8, "gpt2-1558m": 64}


def test_there_are_four():
    names = [script.name for script in SCRIPTS]
    assert names == ["gpt2-124m.sbatch", "gpt2-124m.sh", "gpt2-1558m.sbatch", "gpt2-1558m.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_price_is_what_the_recipe_computes(script):
    head = "".join(script.read_text().splitlines(keepends=True)[:6])
    recipe = named(script.stem)
    network = build_without_memory(network_kind(recipe.network), recipe.network_config(50257))
    per_token = network.flops_per_token(recipe.sequence_length)
    tokens = recipe.steps * recipe.batch_tokens
    hours = per_token * tokens / (GPUS[script.stem] * 989e12 * 0.4) / 3600
    gpu_hours = hours * GPUS[script.stem]
    assert "Computed, not measured" in head
    assert float(re.search(r"FLOPs +(\S+)", head)[1]) == pytest.approx(per_token * tokens, rel=0.005)
    assert f"{tokens:,} tokens" in head
    assert float(re.search(r"hours +(\S+)", head)[1]) == pytest.approx(hours, rel=0.01)
    assert float(re.search(r"\((\S+) GPU hours", head)[1]) == pytest.approx(gpu_hours, rel=0.01)
    assert float(re.search(r"cost +(\S+) USD", head)[1]) == pytest.approx(gpu_hours * 2.5, rel=0.01)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_what_it_calls_is_understood(script, tmp_path):
    """With stand-ins for torchrun and Slurm that print what they get; Myna's own parser takes its part."""
    for name, body in {
        "torchrun": 'printf "%s\\n" "$@"', "srun": 'exec "$@"', "scontrol": "echo node0",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HEAD": "node0:29500", "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "8", "SLURM_JOB_NODELIST": "node[0-7]",
    }  # fmt: skip
    command = ["bash", script, "--data", "/d", "--out", "/o"]
    words = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split("\n")[
        :-1
    ]
    ours = words[words.index("-m") + 1 :]
    assert ours[:3] == ["myna", "train", script.stem]
    from myna.commands import parse
    from myna.commands.train_call import TrainCall

    call = parse(TrainCall, ours[3:], command="train", default=TrainCall(settings=named(script.stem)))
    assert (call.data, str(call.out)) == (("/d",), "/o")
    assert call.shard == ("fsdp" if script.stem == "gpt2-1558m" else "ddp")
    from torch.distributed.run import get_args_parser

    torchruns = get_args_parser().parse_args(words)
    assert torchruns.training_script == "myna"
    assert torchruns.module
    assert torchruns.nproc_per_node == "8"
    if script.stem == "gpt2-1558m":
        assert (torchruns.nnodes, torchruns.rdzv_endpoint) == ("8", "node0:29500")
