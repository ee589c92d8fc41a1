"""An optimizer's state by name, its learning rates and its memory, with one of torch's own underneath and with two."""

import copy

import pytest
import torch
from torch import nn

from myna import GPT, GPTConfig
from myna.errors import CheckpointError, ModelError
from myna.train.optimizers import adamw
from myna.train.optimizers.optimizer import Optimizer, Part


def network():
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=100))


def one_part(network):
    return adamw.build(network, 1e-2, adamw.AdamWOptions())


def two_parts(network):
    """Matrices by SGD with momentum at three times the rate, the rest by AdamW."""
    matrices = [p for p in network.parameters() if p.dim() >= 2]
    rest = [p for p in network.parameters() if p.dim() < 2]
    sgd = torch.optim.SGD([{"params": matrices, "factor": 3.0}], lr=1e-2, momentum=0.9)
    adam = torch.optim.AdamW(rest, lr=1e-2)
    return Optimizer(network, [Part(sgd, ("momentum_buffer",)), Part(adam, ("exp_avg", "exp_avg_sq"))])


BUILDS = [one_part, two_parts]


def made(build):
    """A network and its optimizer after two steps."""
    it = network()
    optimizer = build(it)
    steps(it, optimizer, [1, 2])
    return it, optimizer


def steps(network, optimizer, seeds):
    for seed in seeds:
        chance = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=chance)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("build", BUILDS)
def test_the_state_comes_back_bit_for_bit(build):
    first, optimizer = made(build)
    second = network()
    second.load_state_dict(first.state_dict())
    again = build(second)
    assert (again.has_state(), again.named_state()) == (False, {})
    again.load_named_state(copy.deepcopy(optimizer.named_state()), "a file")
    assert again.has_state()
    for key, tensor in optimizer.named_state().items():
        assert torch.equal(again.named_state()[key], tensor), key
    for it, its in ((first, optimizer), (second, again)):
        its.set_learning_rate(2e-2)
        steps(it, its, [3, 4])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_names_say_which_kind_and_which_parameter():
    _, optimizer = made(two_parts)
    names = set(optimizer.named_state())
    assert {"momentum_buffer.wte.weight", "exp_avg.ln_f.bias", "step.ln_f.bias"} <= names
    assert "exp_avg.wte.weight" not in names


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda state: state.pop("exp_avg_sq.ln_f.bias"), "lacks the optimizer's exp_avg_sq of ln_f.bias"),
        (
            lambda state: state.update({"exp_avg.wpe.weight": torch.zeros(3, 16)}),
            r"exp_avg.wpe.weight has shape \(3, 16\), where \(8, 16\) is needed",
        ),
        (
            lambda state: state.update({"exp_avg.h.7.ln_1.bias": torch.zeros(16)}),
            "'exp_avg.h.7.ln_1.bias' is not of this network and optimizer",
        ),
    ],
)
def test_state_that_does_not_fit_is_refused(spoil, says):
    it, optimizer = made(one_part)
    state = dict(optimizer.named_state())
    spoil(state)
    with pytest.raises(CheckpointError, match=f"^a file.*{says}.*; use another checkpoint$") as refused:
        one_part(it).load_named_state(state, "a file")
    assert "\n" not in str(refused.value)


def test_a_groups_factor_multiplies_the_learning_rate():
    optimizer = two_parts(network())
    optimizer.set_learning_rate(0.5)
    assert [g["lr"] for part in optimizer.parts for g in part.optimizer.param_groups] == [1.5, 0.5]


@pytest.mark.parametrize("build", BUILDS)
def test_the_memory_it_says_is_the_memory_it_takes(build):
    it = network()
    optimizer = build(it)
    said = optimizer.memory_bytes()
    steps(it, optimizer, [1])
    # AdamW counts its steps in a number for each parameter; that is no memory to speak of.
    state = [tensor for key, tensor in optimizer.named_state().items() if not key.startswith("step.")]
    assert said == sum(tensor.nbytes for tensor in state) > 0


def test_the_padding_of_the_vocabulary_counts_as_it_is_computed_with():
    it = network()
    assert one_part(it).memory_bytes() == 2 * 4 * sum(p.numel() for p in it.parameters())


def test_each_parameter_belongs_to_one_part():
    it = network()
    part = Part(torch.optim.AdamW(list(it.parameters())[1:]), ("exp_avg",))
    with pytest.raises(ModelError, match=r"has the parameter wte.weight 0 times; each belongs to one part"):
        Optimizer(it, [part])
    with pytest.raises(ModelError, match=r"has the parameter wpe.weight 2 times; each belongs to one part"):
        Optimizer(it, [part, Part(torch.optim.AdamW(nn.ParameterList(it.parameters())), ("exp_avg",))])
