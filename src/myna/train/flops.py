"""How much arithmetic a token costs, and how much a device can do: model FLOPs utilisation (MFU)."""

import re
import time

import torch

from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT

# Dense bf16 peaks in FLOP/s, from the makers' data sheets, without sparsity. The first of these words that stand in
# the device's own name counts.
PEAK_BF16 = (
    ("GH200", 989e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("V100", 125e12),  # fp16: it has no bf16
    ("T4", 65e12),  # fp16: it has no bf16
)

LONG_SECONDS = 0.05  # for one product, where the next larger takes eight times as long


def flops_per_token(config: GPTConfig, sequence_length: int) -> float:
    """Floating-point operations of one trained token, forward and backward.

    6 N + 12 L C T: two operations (multiply, add) per weight forward and four backward, and attention's products
    of queries, keys and values. N leaves out the position embeddings, which are looked up, and counts the token
    embeddings once, as the head. Attention is counted in full, though causality needs half of it: the convention
    under which figures are compared.

    Source:
        PaLM, arXiv:2204.02311, appendix B.
    """
    L, C, V = config.n_layer, config.n_embd, config.vocab_size
    n_weights = L * (12 * C * C + 13 * C) + 2 * C + V * C
    return 6 * n_weights + 12 * L * C * sequence_length


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """What the device could do at best, in FLOP/s, and where the figure is from: its data sheet, or measured."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for words, peak in PEAK_BF16:
            # A laptop's GPU bears the name of a larger one.
            if re.search(rf"\b{words}\b", name) and "Laptop" not in name:
                return peak, f"data sheet, {words}"
    return measured_flops(device, dtype)


def measured_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """The best of a few large matrix products in `dtype`: FLOP/s, and what was measured.

    Of three sizes the largest that does not take long; a CPU without instructions for a dtype is very slow in it.
    """
    for size in (2048, 4096, 8192) if device.type == "cuda" else (384, 768, 1536):
        a = torch.randn(size, size, device=device, dtype=dtype)
        seconds = min(_product_seconds(a) for _ in range(2 if size < 1536 else 6))
        if seconds > LONG_SECONDS:
            break
    return 2 * size**3 / seconds, f"measured, {size}x{size} matrix product"


def _product_seconds(a: torch.Tensor) -> float:
    synchronize(a.device)
    began = time.perf_counter()
    a @ a
    synchronize(a.device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all it was given; before the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def count_parameters(model: GPT) -> int:
    """Weights of the network, without the rows that pad the vocabulary."""
    padding = (model.config.padded_vocab_size - model.config.vocab_size) * model.config.n_embd
    return sum(p.numel() for p in model.parameters()) - padding
