"""`myna device`: what is here, what `auto` would choose, and what limits a training step."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from myna.commands import parse, refuse_empty
from myna.cores import usable_cores
from myna.errors import UsageError
from myna.recipes import named, vocab_size
from myna.settings import DeviceName
from myna.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

# The instructions that matrix products are made of, in Linux's names, and how people write them.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "amx_fp16": "AMX-FP16",
}
# Computed at once where the call does not say: two of the lecture's sequences on a CPU, its sixteen on a GPU.
ASSUMED_TOKENS = {"cpu": 2048, "mps": 2048, "cuda": 16_384}


@dataclass(frozen=True)
class Device:
    """Show what this machine has and what limits training here: the device, its measured peaks by precision, the speed
    of its memory, what `auto` chooses, and whether arithmetic or memory bounds a step of a recipe. Takes some
    seconds. Nothing is written."""

    recipe: str = "gpt2-124m"
    """Whose step to compute: any recipe of `myna train`."""
    micro_batch: Literal["auto"] | int = "auto"
    """Sequences computed at once, for the bytes of a step; auto: the recipe's, else 2,048 tokens of them on a CPU and
    16,384 on a GPU."""
    device: DeviceName = "auto"
    """Which device to look at; auto takes CUDA, then MPS, then the CPU."""
    json: bool = False
    """Print JSON in place of the text."""


def main(args: Sequence[str]) -> None:
    """Runs `myna device`."""
    refuse_empty(args)
    call = parse(Device, args, command="device")
    recipe = named(call.recipe)
    ids = vocab_size(recipe)
    if call.micro_batch != "auto" and not 1 <= call.micro_batch <= recipe.batch_samples:
        raise UsageError(
            f"--micro-batch is {call.micro_batch}; give 1 to {recipe.batch_samples}, the sequences of a step of "
            f"{recipe.name}"
        )
    from myna.bench.limits import measured, peak_of, step_limits
    from myna.device import apply_precision, resolve_device, resolve_precision
    from myna.files import json_bytes

    device = resolve_device(call.device)
    found = about(device) | measured(device)
    precision = resolve_precision(recipe.precision, device)
    apply_precision(precision, device)
    found["auto"] = choices(device)
    found["step"] = step_limits(
        recipe,
        ids,
        precision,
        micro_batch_of(call, recipe, device),
        flops_per_s=peak_of(precision, found["peaks"], device),
        bytes_per_s=found["copy_bytes_per_s"],
    ) | {"precision": precision.name}
    if call.json:
        sys.stdout.buffer.write(json_bytes(found))
        return
    from myna.bench.limits_text import lines

    print("\n".join(lines(found)))


def micro_batch_of(call: Device, recipe: Recipe, device: "torch.device") -> int:
    """The call's, the recipe's, or what is assumed."""
    given = recipe.micro_batch if call.micro_batch == "auto" else call.micro_batch
    if given != "auto":
        return given
    return min(recipe.batch_samples, max(1, ASSUMED_TOKENS[device.type] // recipe.sequence_length))


def about(device: "torch.device") -> dict[str, Any]:
    """What the machine says of itself."""
    import torch

    from myna.device import cpu_flags, processor_name

    flags = cpu_flags()
    gpu = {}
    if device.type == "cuda":
        gpu = {
            "gpu": torch.cuda.get_device_name(device),
            "gpus": torch.cuda.device_count(),
            "capability": list(torch.cuda.get_device_capability(device)),
        }
    return {
        "device": device.type,
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "instructions": {words: name in flags for name, words in INSTRUCTIONS.items()},
        "torch": torch.__version__,
        **gpu,
    }


def choices(device: "torch.device") -> dict[str, Any]:
    """What `auto` comes to on a device, each with its reason."""
    from myna.device import resolve_precision
    from myna.model.quantize import resolve_weights
    from myna.train.micro_batch import RULE

    writing, scoring = (resolve_weights("auto", device, generates=way) for way in (True, False))
    precision = resolve_precision("auto", device)
    return {
        "precision": {"choice": precision.name, "why": precision.reason},
        "weights": {"choice": writing[0], "why": writing[1]},
        "weights_to_score": {"choice": scoring[0], "why": scoring[1]},
        "micro_batch": {"choice": RULE},
        "compile": compiler(device),
    }


def compiler(device: "torch.device") -> dict[str, str]:
    """Whether `--compile` finds what it needs; only a try can tell whether that works."""
    if device.type == "cuda":
        from importlib.util import find_spec

        return (
            {"choice": "yes", "why": "Triton is installed"}
            if find_spec("triton")
            else {"choice": "no", "why": "Triton is not installed"}
        )
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(name)
    return (
        {"choice": "yes", "why": path}
        if path
        else {"choice": "no", "why": f"there is no C++ compiler {name}"}
    )
