"""The numbers that a plan stands on: each has a flag, a unit, and a source that is printed with it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from myna.errors import UsageError, unknown_name
from myna.gpus import GPUS, Gpu
from myna.settings import PrecisionName, flag

Kind = Literal["given", "assumed", "published", "measured"]


@dataclass(frozen=True)
class Assumption:
    """One number.

    Attributes:
        value: None where nobody has said.
        kind: given by a flag; assumed here; published by somebody; measured by this project.
        source: whose number it is, or why this one.
    """

    value: float | None
    unit: str
    kind: Kind
    source: str


# Those that do not depend on the GPU. Their names are the flags.
DEFAULTS: dict[str, Assumption] = {
    "mfu": Assumption(
        0.4, "share of the peak", "assumed",
        "llm.c's run is 41%: 10.26 billion tokens in 45 minutes on 8 H100",
    ),
    "forward_mfu": Assumption(0.2, "share of the peak", "assumed", "validation and HellaSwag: smaller batches"),
    "link_efficiency": Assumption(0.8, "share of a link's speed", "assumed", "what a ring reaches of it"),
    "gpus_per_machine": Assumption(8, "GPUs", "assumed", "as in a DGX or HGX machine"),
    "network_gbit_per_s": Assumption(
        3200, "Gbit/s a machine, one way", "assumed", "8 x 400 Gbit/s, as a DGX H100 has"
    ),
    "reserved_gb": Assumption(3, "GB a GPU", "assumed", "CUDA, NCCL, the allocator's gaps"),
    "bytes_per_token": Assumption(
        4.67, "bytes of text", "published", "GPT-2's tokens on FineWeb-Edu, nanochat's tokenizer report"
    ),
    "download_bytes_per_token": Assumption(
        2.77, "bytes of parquet", "published", "277.4 GB for 100 billion tokens of FineWeb, its dataset card"
    ),
    "download_mb_per_s": Assumption(100, "MB/s", "assumed", "about 1 Gbit/s"),
    "prepare_mb_per_s": Assumption(
        62.8, "MB/s of text a core", "measured", "125.6 MB/s on 2 cores, benchmarks/prepare.py"
    ),
    "prepare_cores": Assumption(16, "cores", "assumed", "that more cores prepare in proportion is not measured"),
    "usd_per_core_hour": Assumption(0.05, "USD", "assumed", "a rented virtual core"),
    "usd_per_gb_month": Assumption(0.023, "USD", "assumed", "an object store's standard class"),
    "months": Assumption(1, "months", "assumed", "for which shards and checkpoints are kept"),
}  # fmt: skip
SHARES = ("mfu", "forward_mfu", "link_efficiency")
WHOLE = ("gpus_per_machine", "prepare_cores")
MAY_BE_0 = ("reserved_gb", "usd_per_gpu_hour", "usd_per_core_hour", "usd_per_gb_month", "months")
MOST = 1e15
PEAKS = {"bf16": "half", "fp16": "half", "tf32": "tf32", "fp32": "fp32"}
UNKNOWN_PCIE = 32.0


@dataclass(frozen=True)
class Assumptions:
    """All of a plan: numbers by the names of their flags."""

    gpu: str
    precision: Literal["bf16", "fp16", "tf32", "fp32"]
    numbers: Mapping[str, Assumption]

    def __getitem__(self, name: str) -> float:
        value = self.numbers[name].value
        assert value is not None, name
        return value

    def get(self, name: str) -> float | None:
        """The number, or None where nobody has said."""
        return self.numbers[name].value

    def default(self, name: str) -> float | None:
        """What the number is without its flag."""
        return DEFAULTS[name].value

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: asdict(number) for name, number in self.numbers.items()}


def assume(gpu: str, precision: PrecisionName, given: Mapping[str, float | None]) -> Assumptions:
    """The numbers of a GPU, the defaults, and over both those that a person gave.

    Args:
        given: by the names of the flags; None for those that were not given.
    Raises:
        UsageError: the GPU is not in the table, and its peak was not given; a number that cannot be; a precision that
            the GPU has not.
    """
    known = GPUS.get(gpu.lower())
    if known is None and given.get("peak_tflops") is None:
        raise UsageError(
            f"{unknown_name('GPU', gpu, list(GPUS))}; for another one give --peak-tflops, and --memory-gb, "
            "--pcie-gb-per-s and --usd-per-gpu-hour where you know them"
        )
    settled = _settled(known, precision)
    numbers = {**_of_gpu(gpu, known, settled), **DEFAULTS}
    for name, value in given.items():
        if value is not None:
            _check(name, value)
            numbers[name] = Assumption(value, numbers[name].unit, "given", flag(name))
    if numbers["peak_tflops"].value is None:
        raise UsageError(
            f"{gpu} has no {settled}; give another --precision, or --peak-tflops for what it computes in its place"
        )
    return Assumptions(gpu if known is None else gpu.lower(), settled, numbers)


def _settled(known: Gpu | None, precision: PrecisionName) -> Literal["bf16", "fp16", "tf32", "fp32"]:
    """As `myna train` settles `auto`."""
    if precision != "auto":
        return precision
    return "fp16" if known is not None and not known.bf16 else "bf16"


def _of_gpu(gpu: str, known: Gpu | None, precision: str) -> dict[str, Assumption]:
    if known is None:
        sheet: Assumption = Assumption(None, "", "assumed", f"{gpu} is not in the table")
        peak = memory = nvlink = price = None
        pcie = UNKNOWN_PCIE
    else:
        sheet = Assumption(None, "", "published", f"data sheet of the {known.words}")
        peak = None if precision == "bf16" and not known.bf16 else getattr(known, PEAKS[precision])
        memory, nvlink, pcie, price = known.memory, known.nvlink, known.pcie, known.usd
    bandwidth = None if known is None else known.bandwidth

    def row(value: float | None, unit: str) -> Assumption:
        return Assumption(value, unit, sheet.kind, sheet.source)

    asked = "what renters asked in spring 2026" if price is not None else "nobody was asked"
    return {
        "peak_tflops": row(peak, f"TFLOP/s, {precision}, dense"),
        "memory_gb": row(memory, "GB"),
        "bandwidth_gb_per_s": row(bandwidth, "GB/s of its memory"),
        "nvlink_gb_per_s": row(nvlink, "GB/s, one way"),
        "pcie_gb_per_s": row(pcie, "GB/s, one way"),
        "usd_per_gpu_hour": Assumption(price, "USD", "assumed", asked),
    }


def _check(name: str, value: float) -> None:
    """
    Raises:
        UsageError: the number cannot be.
    """
    least = "0 or more" if name in MAY_BE_0 else "more than 0"
    if not math.isfinite(value) or value < 0 or (value == 0 and name not in MAY_BE_0) or value > MOST:
        raise UsageError(f"{flag(name)} is {value:g}; give {least}, and at most {MOST:g}")
    if name in SHARES and value > 1:
        raise UsageError(f"{flag(name)} is {value:g}; it is a share, so give more than 0 and at most 1")
    if name in WHOLE and value != int(value):
        raise UsageError(f"{flag(name)} is {value:g}; give a whole number")
