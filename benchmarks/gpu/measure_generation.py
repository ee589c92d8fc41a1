"""Greedy texts of GPT-2 124M's shape, random weights: transformers and ours in turn, in one process."""

import copy
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from generate import hugging_face_copy, theirs, write
from gpu import arguments
from myna.device import synchronize
from myna.generate.engine import Engine
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.quantize import store_weights

PROMPT, TOKENS, TURNS = 64, 192, 3


def main() -> None:
    """Prints the value."""
    call = arguments.read(__doc__)
    device = torch.device(call.device)
    torch.manual_seed(0)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 32, "vocab_size": 300} if call.tiny else {}
    model = GPT(GPTConfig(**shape)).eval()
    tokens, turns, batches = (4, 1, (1, 2)) if call.tiny else (TOKENS, TURNS, (1, 16, 64))
    others = {kind: hugging_face_copy(model, dtype).to(device) for kind, dtype in DTYPES.items()}
    ours = {"fp32": copy.deepcopy(model).to(device), "bf16": copy.deepcopy(model).to(device)}
    store_weights(ours["bf16"], "bf16")
    lines: list[dict[str, Any]] = []
    for batch in batches:
        ids = torch.randint(model.config.vocab_size, (batch, PROMPT), device=device)
        sides, failure = sides_of(ours, others, ids, tokens, compiled=not call.tiny)
        rates = in_turn(sides, device, turns, batch * tokens)
        best = max(rate for side, rate in rates.items() if side.startswith("transformers"))
        lines += [
            {"batch": batch, "side": side, "ids_per_s": rate, "ratio": rate / best}
            for side, rate in rates.items()
        ]
    print(json.dumps({"lines": lines, "prompt": PROMPT, "tokens": tokens, "compiler_failure": failure}))


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def sides_of(
    ours: dict[str, GPT], others: dict[str, Any], ids: torch.Tensor, tokens: int, *, compiled: bool
) -> tuple[dict[str, Callable[[], None]], str]:
    """What each side does, and why ours is not compiled where that was tried and failed."""
    rows = ids.tolist()
    sides: dict[str, Callable[[], None]] = {}
    failure = ""
    for kind, other in others.items():
        sides[f"transformers, {kind}"] = partial(theirs, other, ids, tokens)
    for kind, one in ours.items():
        sides[f"ours, {kind}"] = partial(write, Engine(one), rows, tokens)
        if compiled and kind == "bf16":  # compiling takes long, and this is the kind that `auto` takes
            engine = Engine(one)
            said = engine.compile_step()
            failure = said or failure
            if said is None:
                sides[f"ours, {kind}, compiled"] = partial(write, engine, rows, tokens)
    return sides, failure


def in_turn(
    sides: dict[str, Callable[[], None]], device: torch.device, turns: int, ids: int
) -> dict[str, float]:
    """Ids a second of each side: the median of its turns, after one that is not timed."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(1 + turns):
        for side, work in sides.items():
            synchronize(device)
            began = time.perf_counter()
            work()
            synchronize(device)
            if turn:
                taken[side].append(time.perf_counter() - began)
    return {side: ids / statistics.median(seconds) for side, seconds in taken.items()}


if __name__ == "__main__":
    main()
