"""The lecture's training step and ours, in turn, on a CPU: tokens a second and peak memory.

    python benchmarks/train_step.py                       # 1 x (2 x 1024) tokens an update
    python benchmarks/train_step.py --accumulate 8        # 8 x (2 x 1024)
    python benchmarks/train_step.py --precision fp32      # as on a processor without bf16
    python benchmarks/train_step.py --layers 2 --steps 2  # quick

The lecture's step (`myna.bench.lecture`) is its eager one: plain PyTorch under bf16 autocast, all logits at once,
AdamW unfused, the C library's allocator as it comes. Ours is what `myna train` runs. Each side runs in a process of
its own, so that its peak memory is its own. The sides take turns, and the median of each is compared, once two steps
have passed: until then memory is still being asked for. On a GPU, `myna bench` compares them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

from myna.bench.ladder import Switches
from myna.bench.lecture import Batch
from myna.bench.rungs import Step, lecture_step, our_step
from myna.model.gpt2 import GPT
from myna.recipes import gpt2_124m
from myna.train.recipe import Recipe

SIDES = ("lecture", "ours", "ours compiled")
STATE_GB = 2.2  # fp32 weights, gradients and Adam's two moments of 124M parameters, and torch itself
WARM_UP = 2


def make_batches(accumulate: int) -> list[Batch]:
    """`accumulate` micro-batches of 2 x 1024 random ids."""
    ids = torch.randint(0, 50257, (accumulate, 2, 1025))
    return [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]


def make_side(side: str, recipe: Recipe, batches: list[Batch]) -> Step:
    """The step of a side."""
    gpt = GPT(recipe.network_config(50257))
    if side == "lecture":
        bf16 = recipe.precision == "bf16"
        on = Switches(bf16=bf16, flash_attention=True, padded_vocabulary=True)
        return lecture_step(gpt, recipe, batches, on)
    step, failure = our_step(gpt, recipe, batches)
    if failure:
        raise SystemExit(failure)
    return step


def measure(call: argparse.Namespace) -> dict[str, float]:
    """Runs one side; returns seconds a step (median), peak memory in GB, and the loss of the first step."""
    torch.manual_seed(0)
    recipe = Recipe(
        n_layer=call.layers,
        steps=gpt2_124m().steps,
        precision=call.precision,
        compile=call.side == "ours compiled",
    )
    batches = make_batches(call.accumulate)
    step = make_side(call.side, recipe, batches)
    first = step()
    for _ in range(WARM_UP - 1):
        step()
    times = []
    for _ in range(call.steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "seconds": statistics.median(times),
        "peak_gb": peak,
        "loss": first,
        "tokens": float(sum(ids.numel() for ids, _ in batches)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--accumulate", type=int, default=1, help="micro-batches of 2 x 1024 tokens an update"
    )
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of both sides")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each turn")
    parser.add_argument("--turns", type=int, default=2, help="how often each side has its turn")
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process, and print JSON")
    call = parser.parse_args()
    if call.side:
        print(json.dumps(measure(call)))
        return
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    environment = os.environ | {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000")}
    for _ in range(call.turns):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side, *sys.argv[1:]]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
    base = statistics.median(r["seconds"] for r in results["lecture"])
    print(f"{'':14} {'s/step':>8} {'tokens/s':>9} {'ratio':>6} {'peak GB':>8} {'first loss':>10}")
    for side, turns in results.items():
        seconds = statistics.median(r["seconds"] for r in turns)
        peak = max(r["peak_gb"] for r in turns)
        print(
            f"{side:14} {seconds:8.2f} {turns[0]['tokens'] / seconds:9.0f} {base / seconds:6.2f} {peak:8.2f} "
            f"{turns[0]['loss']:10.4f}"
        )
    if call.layers == 12:
        above = {side: max(r["peak_gb"] for r in turns) - STATE_GB for side, turns in results.items()}
        for side in SIDES[1:]:
            print(f"{side}: {above[side] / above['lecture']:.2f} of the lecture's memory above {STATE_GB} GB")
    losses = [turns[0]["loss"] for turns in results.values()]
    assert max(losses) - min(losses) < 0.01, "the sides don't compute the same loss"
    best = min(statistics.median(r["seconds"] for r in results[side]) for side in SIDES[1:])
    assert base / best > (1.3 if call.precision == "bf16" else 0.9)


if __name__ == "__main__":
    main()
