"""The files of preparation under launch/ make their parts, with stand-ins for three systems and with Ray."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from myna.cli import main
from myna.data.shards import open_dataset

LAUNCH = Path(__file__).resolve().parents[3] / "launch"


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """The environment of a script that finds programs which print what they are told."""
    for name, body in {
        "srun": 'exec "$@"',
        "myna": 'printf "%s\\n" "$@"; exit "${STATUS:-0}"',
        "scontrol": 'echo "scontrol $@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize("status", [0, 2, 75])
def test_slurm_makes_the_part_of_its_number_and_queues_it_again_after_a_signal(
    programs: dict[str, str], status: int
) -> None:
    env = programs | {"SLURM_ARRAY_TASK_ID": "3", "PARTS": "7", "SLURM_JOB_ID": "99", "STATUS": str(status)}
    command = ["bash", str(LAUNCH / "prepare.sbatch"), "pydoc", "--out", "/o"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert said[:6] == ["prepare", "pydoc", "--out", "/o", "--part", "3/7"]
    assert said[6:] == (["scontrol requeue 99"] if status == 75 else [])
    assert done.returncode == status
    del env["PARTS"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert "set PARTS" in done.stderr


def test_kubernetes_counts_from_0_and_parts_from_1(programs: dict[str, str]) -> None:
    job, join = (yaml.safe_load((LAUNCH / name).read_text()) for name in ("prepare.yaml", "join.yaml"))
    of = job["spec"]["completions"]
    containers = [file["spec"]["template"]["spec"]["containers"][0] for file in (job, join)]
    outs = []
    for index in (0, of - 1):
        words = [*containers[0]["command"], *containers[0]["args"]]
        env = programs | {"JOB_COMPLETION_INDEX": str(index)}
        said = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
        assert said[-2:] == ["--part", f"{index + 1}/{of}"]
        outs.append(said[said.index("--out") + 1])
    assert containers[1]["command"] == ["myna", "data", "join", outs[0]]
    assert outs[0] == outs[1]


def test_rays_tasks_make_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Ray calls each task at once; a stand-in for the process calls Myna here."""
    options: list[dict[str, Any]] = []

    def remote(**given: Any) -> Any:
        options.append(given)
        return lambda function: types.SimpleNamespace(remote=function)

    def run(words: list[str], check: bool) -> None:
        assert check
        assert words[:3] == [sys.executable, "-m", "myna"]
        assert main(words[3:]) == 0

    ray = types.SimpleNamespace(init=lambda: None, remote=remote, get=lambda value: value)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(subprocess, "run", run)
    spec = importlib.util.spec_from_file_location("prepare_ray", LAUNCH / "prepare_ray.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = [json.dumps({"text": f"{n} green bottles"}) + "\n" for n in range(100)]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    script.main(3, [str(tmp_path / "a.jsonl"), "--tokenizer", "bytes", "--out", str(tmp_path / "data")])
    made = open_dataset(tmp_path / "data")
    assert made.train.n_documents + made.val.n_documents == 100
    assert options[0]["retry_exceptions"]


@pytest.mark.slow
def test_ray_itself_makes_the_bytes_of_one_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'myna[ray]'")
    rows = [json.dumps({"text": f"{n} green bottles " * n}) + "\n" for n in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    call = [str(tmp_path / "a.jsonl"), "--tokenizer", "bytes", "--shard-tokens", "200000", "--out"]
    assert main(["prepare", *call, str(tmp_path / "alone")]) == 0
    env = os.environ | {"CORES": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(LAUNCH / "prepare_ray.py"), "3", *call, str(tmp_path / "by_ray")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    alone, by_ray = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("alone", "by_ray")
    )
    assert len(alone) >= 4
    assert by_ray == alone
