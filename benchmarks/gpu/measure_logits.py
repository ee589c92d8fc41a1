"""Our logits against those of transformers, from the same file: GPT-2 124M's shape, random weights, 4 x 1024 ids."""

import json
import tempfile
from typing import Any

import torch
import transformers
from torch import Tensor

from gpu import arguments
from myna.device import autocast
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT


def main() -> None:
    """Prints the value."""
    call = arguments.read(__doc__)
    device = torch.device(call.device)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(0)
    shape = (
        {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "vocab_size": 300} if call.tiny else {}
    )
    config = GPTConfig(**shape)
    with tempfile.TemporaryDirectory() as folder:
        GPT(config).save_pretrained(folder)
        ours = GPT.from_pretrained(folder).to(device).eval()
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).to(device).eval()
    ids = torch.randint(config.vocab_size, (4, config.block_size), device=device)
    with torch.no_grad():
        reference = theirs(ids).logits.float()
        found = [compared("ours, fp32", ours(ids), reference)]
        with autocast(device, torch.bfloat16):
            found.append(compared("ours, bf16 autocast", ours(ids), reference))
            found.append(compared("transformers, bf16 autocast", theirs(ids).logits, reference))
    print(json.dumps({"sides": found, "deviation": float(reference.std())}))


def compared(side: str, logits: Tensor, reference: Tensor) -> dict[str, Any]:
    """How far logits (B, T, V) are from those of transformers in fp32, and how often both have the same best id."""
    difference = (logits.float() - reference).abs()
    same = logits.argmax(-1) == reference.argmax(-1)
    return {
        "side": side,
        "largest": float(difference.max()),
        "mean": float(difference.mean()),
        "same_best": float(same.float().mean()),
    }


if __name__ == "__main__":
    main()
