"""Muon for the blocks' matrices, AdamW for everything else.

Sources of the numbers, numbered as in `myna train --help`:

    [6] modded-nanogpt, records/track_3_optimization: a plain script for GPT-2 124M's shape at 3,250 steps. Its rates:
        0.025 for matrices, 0.7 for embeddings, 0.004 for the head and 0.015 for vectors. Here the first is the recipe's
        learning rate, and the others are given in units of it.

That script's loss is the sum over 524,288 tokens, and ours is their mean. AdamW's update is the same for both, but not
its epsilon: 1e-10 there is 1e-10 / 524,288 = 1.9e-16 here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.errors import ModelError
from myna.settings import ABOVE_0, AT_LEAST_0, AT_LEAST_1, BELOW_1, Options, setting

if TYPE_CHECKING:
    from myna.model.network import Network
    from myna.train.optimizers.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class MuonOptions(Options):
    """Numbers of Muon, and of the AdamW beside it. --learning-rate is for the blocks' matrices; 0.02 is usual."""

    momentum: float = setting(0.95, BELOW_1)
    """Decay of the running mean of the matrices' gradient; the update looks one step ahead (Nesterov) [6]."""
    weight_decay: float = setting(0.05, AT_LEAST_0)
    """Weight decay of the matrices. Each step multiplies them by 1 - learning rate * this [6]."""
    newton_schulz_steps: int = setting(5, AT_LEAST_1)
    """Steps of Newton and Schulz's iteration, which brings an update's singular values near 1 (Jordan 2024)."""
    embedding_factor: float = setting(28.0, ABOVE_0)
    """Learning rate of token embeddings that are not the head, as a multiple of --learning-rate [6]."""
    head_factor: float = setting(0.16, ABOVE_0)
    """Learning rate of the head, of embeddings tied to it, and of position embeddings, as a multiple of --learning-rate
    [6]."""
    vector_factor: float = setting(0.6, ABOVE_0)
    """Learning rate of gains and biases, as a multiple of --learning-rate [6]."""
    adamw_weight_decay: float = setting(0.001, AT_LEAST_0)
    """Weight decay of what AdamW trains. Each step multiplies it by 1 - its learning rate * this [6]."""
    beta1: float = setting(0.8, BELOW_1)
    """AdamW: decay of the running mean of the gradient [6]."""
    beta2: float = setting(0.95, BELOW_1)
    """AdamW: decay of the running mean of the squared gradient [6]."""
    epsilon: float = setting(2e-16, ABOVE_0)
    """AdamW: added to the root of the squared gradient's mean, against division by zero. [6] has 1e-10, for a loss
    summed over 524,288 tokens."""


def build(network: "Network", learning_rate: float, options: MuonOptions) -> "Optimizer":
    """Muon trains the blocks' matrices. AdamW trains all else, in three groups, each with a learning rate of its own.

    Raises:
        ModelError: the blocks have no matrices.
    """
    import torch

    from myna.train.optimizers.muon_matrices import Muon
    from myna.train.optimizers.optimizer import Optimizer, Part

    matrices = [p for p in network.blocks.parameters() if p.dim() == 2]
    if not matrices:
        raise ModelError(
            f"--optimizer muon trains the matrices of a network's blocks, and {type(network).__name__} has none; use "
            "--optimizer adamw"
        )
    in_blocks, in_muon = {id(p) for p in network.blocks.parameters()}, {id(p) for p in matrices}
    embeddings, heads_and_positions, vectors = [], [], []
    for name, p in network.named_parameters():
        if id(p) in in_muon:
            continue
        if id(p) in in_blocks or p.dim() < 2:
            vectors.append(p)
        elif name in network.looked_up and name in network.vocabulary_rows:
            embeddings.append(p)
        else:
            heads_and_positions.append(p)
    groups = [
        {"params": embeddings, "factor": options.embedding_factor},
        {"params": heads_and_positions, "factor": options.head_factor},
        {"params": vectors, "factor": options.vector_factor},
    ]
    muon = Muon(
        matrices,
        lr=learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        steps=options.newton_schulz_steps,
    )
    parts = [
        Part(
            muon,
            kinds=("momentum",),
            share_out=muon.share_out,
            watch=muon.watch,
            use_product_dtype=muon.use_product_dtype,
        )
    ]
    if any(group["params"] for group in groups):
        adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=learning_rate,
            betas=(options.beta1, options.beta2),
            eps=options.epsilon,
            weight_decay=options.adamw_weight_decay,
            fused=network.device.type in ("cpu", "cuda", "mps"),
        )
        parts.append(Part(adamw, kinds=("exp_avg", "exp_avg_sq"), counters=("step",)))
    return Optimizer(network, parts)
