import pytest
import torch

from myna.bench import limits
from myna.bench.limits_text import lines
from myna.device import Precision
from myna.recipes import named

CPU = torch.device("cpu")
BF16 = Precision("bf16", "asked for")


def step(**rates):
    return limits.step_limits(named("gpt2-124m"), 50257, BF16, 2, **rates)


def test_a_step_of_gpt2_is_counted_by_hand():
    found = step(flops_per_s=1e12, bytes_per_s=30e9)
    n, tokens = 124_439_808, 524_288
    # Position embeddings are looked up, not multiplied; attention's products are 12 L C T.
    each = 6 * (n - 1024 * 768) + 12 * 12 * 768 * 1024
    assert (found["parameters"], found["tokens"], found["passes"]) == (n, tokens, 256)
    assert found["flops"] == tokens * each
    assert found["arithmetic_seconds"] == pytest.approx(448.35, abs=0.01)
    moved = found["bytes"]
    assert moved["weights and gradients"] == 256 * n * (2 * 2 + 8)
    assert moved["activations"] == tokens * 12 * 768 * 16 * 2 * 2
    assert moved["logits"] == tokens * 50257 * 4 * 2
    padded = n + (50304 - 50257) * 768
    assert moved["update"] == 12 * n + 2 * 8 * padded  # two moments of four bytes, read and written
    assert found["kept_bytes"] == 16 * padded
    assert found["memory_seconds"] == pytest.approx(sum(moved.values()) / 30e9)


def test_the_longer_of_both_is_the_limit():
    slow = step(flops_per_s=1e12, bytes_per_s=30e9)
    fast = step(flops_per_s=1e15, bytes_per_s=30e9)
    assert (slow["limit"], fast["limit"]) == ("arithmetic", "memory")
    assert slow["tokens_per_second_at_most"] == pytest.approx(524_288 / slow["arithmetic_seconds"])
    assert fast["tokens_per_second_at_most"] == pytest.approx(524_288 / fast["memory_seconds"])


def test_what_a_processor_would_emulate_is_not_measured_before_it_is_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(
        limits, "best_flops", lambda device, dtype: (asked.append(dtype), (2e12, "measured"))[1]
    )
    monkeypatch.setattr(limits, "copy_bytes_per_s", lambda device: 3e10)
    monkeypatch.setattr(limits, "cpu_flags", lambda: frozenset({"avx2"}))
    found = limits.measured(CPU)
    assert asked == [torch.float32]
    assert found["peaks"]["fp32"]["flops"] == 2e12
    assert "no instructions for it (amx_bf16 or avx512_bf16)" in found["peaks"]["bf16"]["skipped"]
    assert found["peaks"]["tf32"]["skipped"] == "a mode of CUDA GPUs"
    assert limits.peak_of(BF16, found["peaks"], CPU) == 2e12
    assert asked == [torch.float32, torch.bfloat16]


def test_an_old_gpu_has_fp16_and_no_bf16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "V100")
    gpu = torch.device("cuda", 0)
    assert limits.why_not_native("fp16", gpu) is None
    assert "compute capability 8.0" in (limits.why_not_native("bf16", gpu) or "")


def test_the_text_shows_the_arithmetic():
    found = {
        "device": "cuda", "gpu": "a GPU", "gpus": 2, "capability": [9, 0], "processor": "a chip", "cores": 2,
        "threads": 2, "torch": "2.13.0", "instructions": {"AVX2": True, "AMX-BF16": False}, "memory_bytes": 10**9,
        "peaks": {"fp32": {"flops": 1e12, "about": "measured"}, "fp16": {"skipped": "no"}}, "copy_bytes_per_s": 3e10,
        "auto": {key: {"choice": "bf16", "why": "so"} for key in
                 ("precision", "weights", "weights_to_score", "micro_batch", "compile")},
        "step": step(flops_per_s=1e12, bytes_per_s=30e9) | {"precision": "bf16"},
    }  # fmt: skip
    text = "\n".join(lines(found))
    assert "a GPU (cuda, one of 2, compute capability 9.0), 1 GB" in text
    assert "instructions: AVX2; not here: AMX-BF16" in text
    assert "524,288 tokens x 855 MFLOP = 448 TFLOP; / 1 TFLOP/s = 448 s" in text
    assert "The limit is arithmetic: a step takes 448 s or more, so at most 1,169 tokens a second." in text
    assert "take 1.99 GB of 1 GB, which is more than there is." in text
