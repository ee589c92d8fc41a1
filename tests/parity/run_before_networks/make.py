"""How this folder was made, by the code of commit c9680ed: two runs that were stopped in their middle.

    git worktree add --detach OLD c9680ed
    PYTHONPATH=OLD/src python -P tests/parity/run_before_networks/make.py

Each run has 24 steps and got SIGTERM in its twelfth. `expected.json` is how that code went on from there.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMIT = "c9680ed"
STEPS, STOPPED_AFTER = 24, 12
RUNS = json.loads((HERE / "flags.json").read_text("utf-8"))
TEXT = "".join(f"{n} birds sat on {n * 7 % 31} wires; then {n * n % 17} flew away.\n" for n in range(1, 221))


def myna_stopped_in_step_12(args: list[str]) -> int:
    """The exit code of a call that sends itself SIGTERM once step 11 is recorded."""
    from myna.cli import main
    from myna.run import Run

    sys.argv = ["myna", *args]  # what environment.json keeps
    append = Run.append_metrics

    def append_and_stop(run: Run, record: dict[str, float]) -> None:
        append(run, record)
        if record["step"] == STOPPED_AFTER - 1 and "train_loss" in record:
            os.kill(os.getpid(), signal.SIGTERM)

    Run.append_metrics = append_and_stop  # type: ignore[method-assign]
    return main(args)


def dropout_draws() -> str:
    """What torch's dropout keeps (1) of 64 numbers with seed 0: its draws are not the same in every build of torch."""
    import torch

    torch.manual_seed(0)
    return "".join(str(int(kept > 0)) for kept in torch.nn.functional.dropout(torch.ones(64), 0.5))


def myna(*args: str, code: int = 0, stop: bool = False) -> None:
    """Runs a command in a process of its own, from this folder, so that the run keeps relative paths."""
    start = [sys.executable, "-P", __file__, "--stopped"] if stop else [sys.executable, "-P", "-m", "myna"]
    assert (
        subprocess.run([*start, *args], cwd=HERE, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode
        == code
    )


def without_this_machine(run: Path) -> None:
    """Takes away what says where the run was made."""
    (run / ".lock").unlink()
    environment = json.loads((run / "environment.json").read_text("utf-8"))
    environment |= {"commit": COMMIT, "platform": "Linux-x86_64"}
    (run / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", "utf-8")


def losses(run: Path) -> dict[str, dict[str, float]]:
    """What the steps after the stop recorded, by step."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if record["step"] > STOPPED_AFTER:
            kept = {key: record[key] for key in ("train_loss", "grad_norm", "val_loss") if key in record}
            found.setdefault(str(record["step"]), {}).update(kept)
    return found


def make() -> None:
    """Writes data/, the runs and expected.json."""
    for name in ("data", *RUNS):
        shutil.rmtree(HERE / name, ignore_errors=True)
    text = HERE / "birds.txt"
    text.write_text(TEXT, "utf-8")
    myna("prepare", text.name, "--out", "data", "--tokenizer", "bytes", "--workers", "1")
    text.unlink()
    expected: dict[str, Any] = {"dropout_draws": dropout_draws()}
    for name, flags in RUNS.items():
        train = ("train", "shakespeare-char", *flags.split(), "--data", "data", "--out")
        myna(*train, name, code=75, stop=True)
        without_this_machine(HERE / name)
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, name)
            shutil.copytree(HERE / name, copy)
            myna(*train, str(copy))
            expected[name] = losses(copy)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stopped"]:
        sys.exit(myna_stopped_in_step_12(sys.argv[2:]))
    make()
