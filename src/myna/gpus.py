"""GPUs by name: what their makers' data sheets say. One table, for plans and for the MFU of a run.

Sources: NVIDIA's data sheets of the DGX B200 (an eighth of it), GH200, H200, H100, A100, L40S, L40, L4, V100 (SXM2,
32 GB) and T4; its white papers on the Ada and GA102 architectures for the RTX cards. Prices are rounded from what
renters asked in spring 2026. They change by the week, so a plan prints its price as an assumption.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A line of the table. All peaks are dense, without sparsity.

    Attributes:
        words: what stands in the device's own name.
        half: peak in bf16 with sums in fp32, TFLOP/s; in fp16 where `bf16` is False.
        tf32: peak in TF32, TFLOP/s; None where it has none.
        fp32: peak in fp32 outside the matrix units, TFLOP/s.
        memory: GB of 10^9 bytes.
        bandwidth: of its memory, GB/s.
        nvlink: GB/s in one direction to all GPUs of a machine together; None where it has none, or only a bridge
            between two or four.
        pcie: GB/s in one direction.
        usd: price of an hour that a plan assumes; None where nobody asked.
    """

    words: str
    half: float
    bf16: bool = True
    tf32: float | None
    fp32: float
    memory: float
    bandwidth: float
    nvlink: float | None = None
    pcie: float
    usd: float | None = None


# The first whose words stand in a device's name counts, so a longer name stands before a shorter one.
GPUS: dict[str, Gpu] = {
    "b200": Gpu(words="B200", half=2250, tf32=1125, fp32=75, memory=180, bandwidth=8000, nvlink=900, pcie=64, usd=6.0),
    "gh200": Gpu(words="GH200", half=989, tf32=494, fp32=67, memory=96, bandwidth=4000, nvlink=450, pcie=64),
    "h200-nvl": Gpu(words="H200 NVL", half=835, tf32=417, fp32=60, memory=141, bandwidth=4800, pcie=64),
    "h200": Gpu(words="H200", half=989, tf32=494, fp32=67, memory=141, bandwidth=4800, nvlink=450, pcie=64, usd=3.6),
    "h100-pcie": Gpu(words="H100 PCIe", half=756, tf32=378, fp32=51, memory=80, bandwidth=2000, pcie=64, usd=2.0),
    "h100-nvl": Gpu(words="H100 NVL", half=835, tf32=417, fp32=60, memory=94, bandwidth=3900, pcie=64),
    "h100": Gpu(words="H100", half=989, tf32=494, fp32=67, memory=80, bandwidth=3350, nvlink=450, pcie=64, usd=2.5),
    "a100": Gpu(words="A100", half=312, tf32=156, fp32=19.5, memory=80, bandwidth=2039, nvlink=300, pcie=32, usd=1.4),
    "a100-40gb": Gpu(words="A100", half=312, tf32=156, fp32=19.5, memory=40, bandwidth=1555, nvlink=300, pcie=32),
    "l40s": Gpu(words="L40S", half=362, tf32=183, fp32=91.6, memory=48, bandwidth=864, pcie=32, usd=0.8),
    "l40": Gpu(words="L40", half=181, tf32=90.5, fp32=90.5, memory=48, bandwidth=864, pcie=32, usd=0.7),
    "l4": Gpu(words="L4", half=121, tf32=60, fp32=30.3, memory=24, bandwidth=300, pcie=32, usd=0.45),
    "rtx-4090": Gpu(words="RTX 4090", half=165, tf32=82.6, fp32=82.6, memory=24, bandwidth=1008, pcie=32, usd=0.35),
    "rtx-3090": Gpu(words="RTX 3090", half=71, tf32=35.6, fp32=35.6, memory=24, bandwidth=936, pcie=32, usd=0.25),
    "v100": Gpu(words="V100", half=125, bf16=False, tf32=None, fp32=15.7, memory=32, bandwidth=900, nvlink=150, pcie=16),  # noqa: E501
    "t4": Gpu(words="T4", half=65, bf16=False, tf32=None, fp32=8.1, memory=16, bandwidth=300, pcie=16),
}  # fmt: skip


def gpu_named(device: str) -> Gpu | None:
    """The line of a GPU by the name that the device itself has; None where the table has none.

    >>> gpu_named("NVIDIA H100 PCIe").half, gpu_named("NVIDIA GeForce RTX 4090 Laptop GPU")
    (756, None)
    """
    if "Laptop" in device:  # it bears the name of a larger one
        return None
    return next((gpu for gpu in GPUS.values() if re.search(rf"\b{gpu.words}\b", device)), None)
