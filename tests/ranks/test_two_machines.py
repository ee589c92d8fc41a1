"""Two machines, as far as the network can tell: namespaces joined by a cable (a veth pair), a torchrun in each."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = 300
NAMES = ("myna-one", "myna-two")
ADDRESSES = ("10.213.7.1", "10.213.7.2")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def machines():
    """Two namespaces that reach each other over `cable`."""
    made = ip("netns", "add", NAMES[0]) if sys.platform == "linux" and Path("/sbin/ip").exists() else None
    if made is None or made.returncode:
        pytest.skip(
            f"network namespaces are not allowed here: {made.stderr.strip() if made else 'no ip command'}"
        )
    commands = [
        ["netns", "add", NAMES[1]],
        ["-n", NAMES[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", NAMES[1]],
        *(["-n", name, "addr", "add", f"{address}/24", "dev", "cable"]
          for name, address in zip(NAMES, ADDRESSES, strict=True)),
        *(["-n", name, "link", "set", device, "up"] for name in NAMES for device in ("lo", "cable")),
    ]  # fmt: skip
    try:
        for command in commands:
            done = ip(*command)
            if done.returncode:
                pytest.skip(f"network namespaces cannot be joined here: {done.stderr.strip()}")
        yield
    finally:
        for name in NAMES:
            ip("netns", "del", name)


def start(number, args, out, log):
    """One machine's torchrun, as launch/multi_node.sh calls it."""
    command = [
        "ip", "netns", "exec", NAMES[number], sys.executable, "-m", "torch.distributed.run",
        "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d",
        "--rdzv-id", "myna-test", "--rdzv-endpoint", f"{ADDRESSES[0]}:29511", "--local-addr", ADDRESSES[number],
        # torchrun looks for the endpoint among the addresses of the host's name, which namespaces share.
        "--rdzv-conf", f"is_host={int(number == 0)}",
        "-m", "myna", "train", *args, "--out", str(out),
    ]  # fmt: skip
    env = dict(os.environ) | {"GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"}
    with open(log, "wb") as file:
        return subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)


def worker_of(torchrun):
    """The rank's process, a child of torchrun."""
    while True:
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if b"myna" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        time.sleep(0.05)


@pytest.mark.slow
def test_two_machines_train_and_survive_the_kill_of_one(machines, launch, small_run, hashes, tmp_path):
    args = [*small_run, "--steps", str(STEPS), "--checkpoint-every", "20", "--timeout-s", "30"]
    logs = [tmp_path / f"{name}.log" for name in NAMES]
    out = tmp_path / "run"
    torchruns = [start(number, args, out, logs[number]) for number in (0, 1)]

    def said():
        return "\n".join(log.read_text(errors="replace") for log in logs)

    try:
        for step, number in ((20, 1), (120, 0)):
            end = time.monotonic() + 150
            while not (out / "checkpoints" / f"step_{step:08d}").exists():
                assert time.monotonic() < end, said()
                assert all(one.poll() is None for one in torchruns), said()
                time.sleep(0.02)
            os.kill(worker_of(torchruns[number]), signal.SIGKILL)
        assert [one.wait(200) for one in torchruns] == [0, 0], said()
    finally:
        for one in torchruns:
            one.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(40)
            one.kill()
    assert said().count("resuming after step") == 2
    assert "rank " in said()
    assert " died; the last checkpoint is kept" in said()
    whole = launch(args, tmp_path / "whole", ranks=2)
    assert whole.wait() == 0, whole.said()
    assert hashes(out, STEPS) == hashes(tmp_path / "whole", STEPS)
