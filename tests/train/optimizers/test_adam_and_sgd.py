"""Adam and SGD follow their formulas, and their decay is where the option says."""

import pytest
import torch

from myna.settings import Options
from myna.train.build import new_network, new_optimizer
from myna.train.optimizers.adam import AdamOptions
from myna.train.optimizers.adamw import AdamWOptions
from myna.train.optimizers.sgd import SGDOptions
from myna.train.recipe import Recipe

RATE = 0.1


def after(
    kind: str, options: Options, gradients: list[float]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Each parameter before and after steps whose gradients are one number everywhere."""
    recipe = Recipe(
        n_layer=1, n_head=1, n_embd=8, optimizer=kind, optimizer_options=options, learning_rate=RATE
    )
    torch.manual_seed(0)
    network = new_network(recipe, 50, torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = new_optimizer(recipe, network)
    for gradient in gradients:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    assert set(optimizer.named_state()) == {
        f"{kind}.{name}"
        for part in optimizer.parts
        for kind in (*part.kinds, *part.counters)
        for name in before
    }
    return {name: (before[name], p.detach()) for name, p in network.named_parameters()}


def test_sgd_adds_the_gradients_up():
    for old, new in after("sgd", SGDOptions(momentum=0.5), [1.0, 3.0]).values():
        torch.testing.assert_close(new, old - RATE * 1.0 - RATE * (0.5 * 1.0 + 3.0))


def test_sgd_without_momentum_keeps_nothing():
    for old, new in after("sgd", SGDOptions(momentum=0.0), [1.0, 3.0]).values():
        torch.testing.assert_close(new, old - RATE * 4.0)


@pytest.mark.parametrize("decays", ["matrices", "all"])
def test_the_decay_of_sgd_is_a_part_of_the_gradient(decays):
    for old, new in after("sgd", SGDOptions(weight_decay=0.5, decays=decays), [1.0]).values():
        decay = 0.5 if decays == "all" or old.dim() == 2 else 0.0
        torch.testing.assert_close(new, old - RATE * (1.0 + decay * old))


def test_adam_divides_its_decay_by_the_gradients_size_and_adamw_does_not():
    # The first step of both goes by the rate, whatever the gradient's size: in a large one a decay drowns.
    options = {"weight_decay": 0.5, "epsilon": 1e-12}
    for old, new in after("adam", AdamOptions(**options), [1e6]).values():
        torch.testing.assert_close(new, old - RATE, atol=1e-6, rtol=0)
    for old, new in after("adamw", AdamWOptions(**options), [1e6]).values():
        decay = 0.5 if old.dim() == 2 else 0.0
        torch.testing.assert_close(new, old - RATE - RATE * decay * old, atol=1e-6, rtol=0)


def test_all_of_adamw_decays_where_asked():
    for old, new in after("adamw", AdamWOptions(weight_decay=0.5, decays="all"), [0.0]).values():
        torch.testing.assert_close(new, old * (1 - RATE * 0.5))
