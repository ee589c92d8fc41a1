"""The lecture's training step and ours, in turn, on one machine: tokens a second and peak memory.

    python benchmarks/train_step.py                       # 1 x (2 x 1024) tokens an update
    python benchmarks/train_step.py --accumulate 8        # 8 x (2 x 1024)
    python benchmarks/train_step.py --layers 2 --rounds 2 # quick

The lecture's step is written out below: eager PyTorch under bf16 autocast, all logits at once, AdamW unfused, the
C library's allocator as it comes. Ours is what `myna train` runs. Each side runs in a process of its own, so that
its peak memory is its own; the rounds alternate, and the median of each side is compared.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from myna.model.gpt2 import GPT
from myna.model.loss import IGNORE
from myna.recipes import gpt2_124m
from myna.train.allocator import keep_freed_memory
from myna.train.optim import make_optimizer
from myna.train.ranks import Ranks, resolve_device, resolve_precision
from myna.train.recipe import Recipe
from myna.train.step import Stepper

SIDES = ("lecture", "ours", "ours compiled")


def lecture_step(model: GPT, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Callable[[], float]:
    """As in "Let's reproduce GPT-2", before its later rungs: plain and readable."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), eps=1e-8, fused=False)

    def step() -> float:
        optimizer.zero_grad()
        total = 0.0
        for ids, targets in batches:
            with torch.autocast(model.device.type, torch.bfloat16):
                logits = F.linear(model.hidden(ids), model.wte.weight)
                loss = F.cross_entropy(
                    logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=IGNORE
                )
            loss = loss / len(batches)
            total += loss.item()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total

    return step


def our_step(
    model: GPT, recipe: Recipe, batches: list[tuple[torch.Tensor, torch.Tensor]], compiled: bool
) -> Callable[[], float]:
    """What `myna train` does."""
    keep_freed_memory()
    ranks = Ranks(0, 1, model.device)
    stepper = Stepper(
        model,
        make_optimizer(model, recipe),
        ranks=ranks,
        precision=resolve_precision("bf16", model.device),
        clip_norm=1.0,
        seed=0,
    )
    if compiled:
        stepper.loss.compile_step()
    tokens = sum(ids.numel() for ids, _ in batches)

    def step() -> float:
        return stepper.step(
            0, iter(batches), accumulate=len(batches), step_tokens=tokens, learning_rate=6e-4
        ).loss

    return step


def measure(side: str, layers: int, accumulate: int, rounds: int) -> dict[str, float]:
    """Runs one side; returns seconds a step (median), peak memory in GB, and the loss of the first step."""
    torch.manual_seed(0)
    device = resolve_device("auto")
    recipe = Recipe(n_layer=layers, steps=gpt2_124m().steps)
    model = GPT(recipe.model_config(50257)).to(device)
    ids = torch.randint(0, 50257, (accumulate, 2, 1025), device=device)
    batches = [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]
    step = (
        lecture_step(model, batches)
        if side == "lecture"
        else our_step(model, recipe, batches, compiled=side == "ours compiled")
    )
    first = step()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "seconds": statistics.median(times),
        "peak_gb": peak,
        "loss": first,
        "tokens": float(ids.shape[0] * 2048),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--accumulate", type=int, default=1, help="micro-batches of 2 x 1024 tokens an update"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each turn")
    parser.add_argument("--turns", type=int, default=2, help="how often each side has its turn")
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process, and print JSON")
    call = parser.parse_args()
    if call.side:
        print(json.dumps(measure(call.side, call.layers, call.accumulate, call.rounds)))
        return
    options = [
        "--layers",
        str(call.layers),
        "--accumulate",
        str(call.accumulate),
        "--rounds",
        str(call.rounds),
    ]
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    environment = os.environ | {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000")}
    for _ in range(call.turns):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side, *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
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
    losses = [turns[0]["loss"] for turns in results.values()]
    assert max(losses) - min(losses) < 0.01, "the sides don't compute the same loss"
    assert base / min(statistics.median(r["seconds"] for r in results[s]) for s in SIDES[1:]) > 1.1


if __name__ == "__main__":
    main()
