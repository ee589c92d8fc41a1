"""The parent's side of `myna bench --attention`: each way in a process of its own, and what came of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from myna.bench.ladder import Machine
from myna.bench.measure import KilledError, run_job
from myna.settings import DeviceName, PrecisionName

# By name: the title for people, and what it is.
WAYS = {
    "four-operations": ("four operations", "scores, mask, softmax and product, written out"),
    "pytorch": ("PyTorch", "its one call, scaled_dot_product_attention"),
    "ours": ("ours", "what `myna train` computes"),
    "online-softmax": ("online softmax", "FlashAttention's recurrence in plain torch, as a reference"),
}

# Computed at once: so many over T sequences, and at least one. The lecture's 16 x 1024 on a GPU.
TOKENS = {"cpu": 4096, "cuda": 16_384}


@dataclass(frozen=True)
class AttentionPlan:
    """What is to be measured.

    Attributes:
        lengths: T, the shortest first.
        steps: timed passes, forward and backward.
    """

    recipe: str
    n_head: int
    n_embd: int
    lengths: Sequence[int]
    steps: int
    device: DeviceName
    precision: PrecisionName


def measure_attention(
    plan: AttentionPlan, on_way: Callable[[str], None] = lambda title: None
) -> dict[str, Any]:
    """Measures all ways at all lengths; the whole result, as attention.json has it.

    Args:
        on_way: told of each way that is about to be measured.
    Raises:
        DeviceError: the device is not there. ChildError: a way failed by a defect.
    """
    on_way("the machine")
    machine = Machine.from_json(run_job({"task": "survey", "device": plan.device}))
    tokens = TOKENS.get(machine.device, TOKENS["cpu"])
    ways = []
    for name, (title, what) in WAYS.items():
        on_way(title)
        job = asdict(plan) | {"task": "attention", "way": name, "device": machine.device, "tokens": tokens}
        try:
            found = run_job(job)
        except KilledError:
            why = "the system ended its process, as it does when memory runs out"
            found = {"lengths": [{"length": length, "skipped": why} for length in plan.lengths]}
        ways.append({"name": name, "title": title, "what": what} | found)
    return asdict(plan) | {"machine": asdict(machine), "tokens": tokens, "ways": ways}
