"""The scripts of training under launch/: what they call, and the price they state."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from myna.model.network import network_kind
from myna.model.weights import build_without_memory
from myna.recipes import named

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("gpt2-*"))
GPUS = {"gpt2-124m": 8, "gpt2-1558m": 64}


def test_there_are_three_of_each():
    names = [script.name for script in SCRIPTS]
    assert names == [f"{name}.{kind}" for name in sorted(GPUS) for kind in ("sbatch", "sh", "yaml")]


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


def pod_of(script):
    """What the container of a Kubernetes job runs."""
    (job,) = [part for part in yaml.safe_load_all(script.read_text()) if part["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return [*container["command"], *container["args"]]


def test_kubernetes_pods_find_the_first_by_the_services_name():
    service, job = yaml.safe_load_all((LAUNCH / "gpt2-1558m.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"] == name
    assert service["spec"]["selector"] == {"job-name": name}
    assert f"--rdzv-endpoint {name}-0.{name}:29500" in pod_of(LAUNCH / "gpt2-1558m.yaml")[-1]
    assert f"--nnodes {spec['completions']} " in pod_of(LAUNCH / "gpt2-1558m.yaml")[-1]
    assert spec["completions"] == spec["parallelism"]


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
    command, data, out = ["bash", script, "--data", "/d", "--out", "/o"], "/d", "/o"
    if script.suffix == ".yaml":
        command, env = pod_of(script), env | {"JOB_COMPLETION_INDEX": "7", "POD_IP": "10.0.0.7"}
        data, out = "/shared/data/fineweb-edu", f"/shared/runs/{script.stem}"
    words = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split("\n")[
        :-1
    ]
    ours = words[words.index("-m") + 1 :]
    assert ours[:3] == ["myna", "train", script.stem]
    from myna.commands import parse
    from myna.commands.train_call import TrainCall

    call = parse(TrainCall, ours[3:], command="train", default=TrainCall(settings=named(script.stem)))
    assert (call.data, str(call.out)) == ((data,), out)
    assert call.shard == ("fsdp" if script.stem == "gpt2-1558m" else "ddp")
    from torch.distributed.run import get_args_parser

    torchruns = get_args_parser().parse_args(words)
    assert torchruns.training_script == "myna"
    assert torchruns.module
    assert torchruns.nproc_per_node == "8"
    if script.stem == "gpt2-1558m":
        host = "gpt2-1558m-0.gpt2-1558m" if script.suffix == ".yaml" else "node0"
        assert (torchruns.nnodes, torchruns.rdzv_endpoint) == ("8", f"{host}:29500")
        if script.suffix == ".yaml":
            assert (torchruns.rdzv_conf, torchruns.local_addr) == ("is_host=0", "10.0.0.7")
