"""What the device can do, measured, and which of its limits a training step of a recipe meets: arithmetic or memory."""

from collections.abc import Mapping
from typing import Any

import torch

from myna.bench.ladder import Machine
from myna.device import (
    BF16_INSTRUCTIONS,
    FP16_INSTRUCTIONS,
    Precision,
    apply_precision,
    cpu_flags,
    memory_bytes,
    processor_name,
    resolve_precision,
)
from myna.errors import DeviceError
from myna.model.network import network_kind
from myna.model.weights import build_without_memory
from myna.settings import PrecisionName
from myna.train.build import new_optimizer
from myna.train.machines.speed import best_flops, copy_bytes_per_s
from myna.train.memory import kept_bytes
from myna.train.recipe import Recipe

PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "tf32", "bf16", "fp16")

# What a block keeps of each token for the backward pass, in numbers of the model's width: Korthikanti et al. 2022,
# arXiv:2205.05198, section 4.1, without the masks of dropout and without attention's squares, which are computed again.
KEPT_WIDTHS = 16


def machine_of(device: torch.device) -> Machine:
    """The machine: what it has, and what its matrix products reach in the precision that `auto` takes."""
    dtype = resolve_precision("auto", device).dtype or torch.float32
    flops, about = best_flops(device, dtype)
    on_cuda = device.type == "cuda"
    return Machine(
        device=device.type,
        name=torch.cuda.get_device_name(device) if on_cuda else processor_name(),
        capability=torch.cuda.get_device_capability(device) if on_cuda else None,
        bf16_instructions=tuple(sorted(cpu_flags() & BF16_INSTRUCTIONS)),
        fp16_instructions=tuple(sorted(cpu_flags() & FP16_INSTRUCTIONS)),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        matrix_flops=flops,
        matrix_about=f"{about}, {str(dtype).removeprefix('torch.')}",
    )


def flops_per_token(recipe: Recipe, vocab_size: int) -> float:
    """Of a trained token of the recipe's network, forward and backward."""
    sketch = build_without_memory(network_kind(recipe.network), recipe.network_config(vocab_size))
    return sketch.flops_per_token(recipe.sequence_length)


def measured(device: torch.device) -> dict[str, Any]:
    """The device's limits.

    Returns:
        peaks: by precision, `flops` (FLOP/s of a large matrix product) and `about`; or why it is `skipped`.
        copy_bytes_per_s: bytes read and written by a large copy.
        memory_bytes: all of its memory.
    """
    peaks: dict[str, dict[str, Any]] = {}
    for name in PRECISIONS:
        if why := why_not_native(name, device):
            peaks[name] = {"skipped": why}
            continue
        precision = resolve_precision(name, device)
        apply_precision(precision, device)
        flops, about = best_flops(device, precision.dtype or torch.float32)
        peaks[name] = {"flops": flops, "about": about}
    return {
        "peaks": peaks,
        "copy_bytes_per_s": copy_bytes_per_s(device),
        "memory_bytes": memory_bytes(device),
    }


def why_not_native(name: PrecisionName, device: torch.device) -> str | None:
    """Why a device does not multiply in a precision, for people; None where it does."""
    if name == "tf32" and device.type != "cuda":
        return "a mode of CUDA GPUs"
    try:
        resolve_precision(name, device)
    except DeviceError as error:
        return str(error)
    needed = {"bf16": BF16_INSTRUCTIONS, "fp16": FP16_INSTRUCTIONS}.get(name)
    if device.type == "cpu" and needed and not cpu_flags() & needed:
        return f"the processor has no instructions for it ({' or '.join(sorted(needed))})"
    return None


def peak_of(precision: Precision, peaks: Mapping[str, Mapping[str, Any]], device: torch.device) -> float:
    """The measured FLOP/s of what a precision multiplies in.

    A precision that the device emulates was not measured before, and is now.
    """
    peak = peaks[precision.name]
    return peak["flops"] if "flops" in peak else best_flops(device, precision.dtype or torch.float32)[0]


def step_limits(
    recipe: Recipe,
    vocab_size: int,
    precision: Precision,
    micro_batch: int,
    *,
    flops_per_s: float,
    bytes_per_s: float,
) -> dict[str, Any]:
    """What a step of a recipe asks of one device: its arithmetic over the peak, its bytes over the memory's speed.

    Counted are the bytes that cannot be avoided: each micro-batch reads the weights forward and backward and adds to
    the fp32 gradients; what the blocks keep is written and read; logits are written and read, and so is their
    gradient; the update reads and writes the weights and the optimizer's state, and reads the gradients.

    Args:
        micro_batch: sequences computed at once.
    Returns:
        the numbers of both, in seconds at best, and which is longer: `limit` is "arithmetic" or "memory".
    """
    network = build_without_memory(network_kind(recipe.network), recipe.network_config(vocab_size))
    optimizer = new_optimizer(recipe, network)
    size = 4 if precision.dtype is None else precision.dtype.itemsize
    tokens, parameters = recipe.batch_tokens, network.n_parameters()
    passes = -(-recipe.batch_samples // micro_batch)
    each_token = network.flops_per_token(recipe.sequence_length)
    moved = {
        "weights and gradients": passes * parameters * (2 * size + 8),
        "activations": tokens * recipe.n_layer * recipe.n_embd * KEPT_WIDTHS * 2 * size,
        "logits": tokens * vocab_size * 4 * size,
        "update": 12 * parameters + 2 * optimizer.memory_bytes(),
    }
    arithmetic_s, memory_s = tokens * each_token / flops_per_s, sum(moved.values()) / bytes_per_s
    return {
        "recipe": recipe.name,
        "parameters": parameters,
        "tokens": tokens,
        "micro_batch": micro_batch,
        "sequence_length": recipe.sequence_length,
        "passes": passes,
        "bytes_per_number": size,
        "flops_per_token": each_token,
        "flops": tokens * each_token,
        "flops_per_s": flops_per_s,
        "bytes": moved,
        "bytes_per_s": bytes_per_s,
        "arithmetic_seconds": arithmetic_s,
        "memory_seconds": memory_s,
        "limit": "arithmetic" if arithmetic_s >= memory_s else "memory",
        "tokens_per_second_at_most": tokens / max(arithmetic_s, memory_s),
        "kept_bytes": kept_bytes(network, optimizer),
    }
