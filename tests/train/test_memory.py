import dataclasses

import pytest
import torch

from myna.device import Precision
from myna.recipes import named
from myna.train import memory
from myna.train.machines.ranks import Ranks
from myna.train.memory import memory_advice

RECIPE = named("gpt2-124m")
FP32, BF16 = Precision("fp32", ""), Precision("bf16", "")


@pytest.fixture(autouse=True)
def a_device_for_bf16(monkeypatch):
    monkeypatch.setattr(memory, "resolve_precision", lambda name, device: BF16)


def ways(recipe=RECIPE, ranks=1, device="cuda", precision=FP32, **now):
    now = {"micro_batch": 8, "recomputes": False, "sharded": False} | now
    said = memory_advice(recipe, Ranks(0, ranks, torch.device(device)), precision, **now)
    return said.partition("): ")[2].split("; ")


def test_a_gpu_with_all_to_try():
    averaged = dataclasses.replace(RECIPE, average_decay=0.99)
    assert ways(averaged) == [
        "--micro-batch 4 (it is 8)",
        "--precision bf16 (it is fp32)",
        "--activation-checkpointing (a third more work)",
        "more GPUs with --shard fsdp",
        "--average-decay 0, since the average is a copy of the weights",
        "a --sequence-length below 1024",
        "a smaller model",
    ]


def test_what_is_done_already_is_not_named():
    last = ["a --sequence-length below 1024", "a smaller model"]
    assert ways(precision=BF16, ranks=8, micro_batch=1, recomputes=True, sharded=True) == last
    assert ways(precision=BF16, ranks=8, micro_batch=1, recomputes=True) == ["--shard fsdp", *last]


def test_ranks_on_one_cpu_share_its_memory():
    said = ways(device="cpu", ranks=2, micro_batch=9)
    assert said[0] == "--micro-batch 3 (it is 9)"
    assert "fewer processes, since all share this machine's memory" in said
    assert not any("GPU" in way for way in said)
