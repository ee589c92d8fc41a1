import pytest
import torch

from myna.train.build import new_network, new_optimizer
from myna.train.optimizers.adamw import AdamWOptions
from myna.train.recipe import Recipe


@pytest.fixture
def groups():
    """Of a network's optimizer: those of torch's own AdamW."""
    recipe = Recipe(
        n_layer=1,
        n_head=1,
        n_embd=8,
        optimizer_options=AdamWOptions(weight_decay=0.3, beta1=0.8, beta2=0.7, epsilon=1e-6),
    )
    (part,) = new_optimizer(recipe, new_network(recipe, 50, torch.device("cpu"))).parts
    return part.optimizer.param_groups


def test_only_matrices_decay(groups):
    decayed, plain = groups
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)


def test_its_options_are_torchs(groups):
    for group in groups:
        assert (group["betas"], group["eps"], group["lr"], group["fused"]) == ((0.8, 0.7), 1e-6, 6e-4, True)
