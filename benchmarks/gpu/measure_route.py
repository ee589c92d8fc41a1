"""The route for 40 steps of GPT-2 124M: text, shards, training with validation, HellaSwag and samples, a checkpoint."""

import json
import shutil
import statistics
import time
from pathlib import Path

from gpu import arguments
from gpu.training import myna, prepared, recipe
from myna.run import Run

STEPS, EVERY, STEADY = 40, 20, 10


def main() -> None:
    """Prints the value."""
    call = arguments.read(__doc__, hellaswag="HellaSwag's JSONL file")
    out = Path("route")
    shutil.rmtree(out, ignore_errors=True)
    data = prepared(call.tiny)
    each = [word for name in ("eval", "sample", "hellaswag") for word in (f"--{name}-every", str(EVERY))]
    began = time.monotonic()
    myna(
        *("train", *recipe(call.tiny), "--data", str(data), "--out", str(out), "--device", call.device),
        *("--steps", str(STEPS), "--hellaswag", call.hellaswag, *each),
    )
    seconds = time.monotonic() - began
    run = Run(out)
    records = run.metrics()
    steps = [record for record in records if "train_loss" in record]
    value = {
        "seconds": seconds,
        "train_loss": [steps[0]["train_loss"], steps[-1]["train_loss"]],
        "tokens_per_second": statistics.median(step["tokens_per_second"] for step in steps[-STEADY:]),
        "mfu": statistics.median(step["mfu"] for step in steps[-STEADY:]),
        "input_wait_seconds": statistics.median(step["input_wait_seconds"] for step in steps[-STEADY:]),
        "micro_batch": run.recipe()["micro_batch"],
        "evaluations": [record for record in records if "val_loss" in record or "hellaswag_acc" in record],
        "sample": run.samples()[-1]["text"],
    }
    print(json.dumps(value))


if __name__ == "__main__":
    main()
