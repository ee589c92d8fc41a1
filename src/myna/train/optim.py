"""AdamW in GPT-3's setting: decay on matrices only, fused where the device can."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from myna.errors import CheckpointError
from myna.model.gpt2 import GPT
from myna.train.recipe import Recipe
from myna.train.shard import like

MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(model: GPT, recipe: Recipe) -> torch.optim.AdamW:
    """Two groups: what multiplies (matrices, embeddings) decays; what shifts or scales (biases, norms) doesn't.

    Fused means one kernel over all parameters; CPU, CUDA and MPS have it.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=model.device.type in ("cpu", "cuda", "mps"),
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: GPT) -> dict[str, dict[str, Tensor]]:
    """The moments by kind and parameter name, for a checkpoint: this rank's parts. Empty before the first step."""
    result: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for kind in MOMENTS:
            if kind in state:
                result.setdefault(kind, {})[name] = state[kind]
    return result


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: GPT, tensors: Mapping[str, Mapping[str, Tensor]], step: int
) -> None:
    """Puts the moments of a checkpoint back.

    Args:
        step: updates made so far, from which Adam's bias correction follows.
    Raises:
        CheckpointError: a kind of moment is missing.
    """
    if step == 0:
        return
    if missing := set(MOMENTS) - tensors.keys():
        raise CheckpointError(
            f"the checkpoint lacks the optimizer's {', '.join(sorted(missing))}; use another one"
        )
    state: dict[int, dict[str, Any]] = {}
    order = [p for group in optimizer.param_groups for p in group["params"]]
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    for number, parameter in enumerate(order):
        state[number] = {kind: like(tensors[kind][name_of[parameter]], parameter) for kind in MOMENTS}
        state[number]["step"] = torch.tensor(float(step))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
