import pytest
import torch

from myna.train.machines import speed


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA T400", None),
        ("NVIDIA GeForce RTX 3090 Laptop GPU", None),
    ],
)
def test_a_gpu_is_known_by_its_whole_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(speed, "measured_flops", lambda device, dtype: (1.0, "measured"))
    found, source = speed.peak_flops(torch.device("cuda"), torch.bfloat16)
    assert (found, source.split(",")[0]) == ((peak, "data sheet") if peak else (1.0, "measured"))


def test_a_slow_dtype_is_measured_on_a_small_matrix(monkeypatch):
    def seconds(a):
        return len(a) ** 3 / rate

    monkeypatch.setattr(speed, "_product_seconds", seconds)
    for rate, size in ((1e11, 1536), (1e9, 384)):
        found, about = speed.measured_flops(torch.device("cpu"), torch.float32)
        assert (found, about) == (pytest.approx(2 * rate), f"measured, {size}x{size} matrix product")
