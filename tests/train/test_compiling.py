import functools
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from myna.errors import DeviceError
from myna.model.config import GPTConfig
from myna.model.decoder import run_block
from myna.model.gpt2 import GPT
from myna.train.compiling import compile_or_say_why
from myna.train.summed_loss import SummedLoss


def test_a_compiler_that_fails_is_named_and_training_goes_on(train, hashes, tmp_path, capsys, monkeypatch):
    def broken(function, **options):
        def call(*args):
            raise RuntimeError("no C++ compiler here\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    plain = train(tmp_path / "plain", 2)
    run = train(tmp_path / "run", 2, "--compile")
    assert "torch.compile failed, training without it: no C++ compiler here" in capsys.readouterr().out
    assert hashes(run.path, 2) == hashes(plain.path, 2)


def test_memory_that_runs_out_is_not_the_compilers_failure(train, tmp_path, monkeypatch):
    def hidden(ids, texts=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(SummedLoss, "compile_step", lambda self, by, **how: setattr(self, "hidden", hidden))
    with pytest.raises(DeviceError, match=r"compiling: out of memory; try .*: --micro-batch 2 \(it is 4\);"):
        train(tmp_path / "run", 2, "--compile")


@pytest.mark.parametrize(
    ("by", "device", "ranks", "by_block"),
    [
        ("auto", "cpu", 1, True),
        ("auto", "cpu", 2, True),
        ("auto", "cuda", 2, True),
        ("auto", "cuda", 1, False),
        ("network", "cpu", 1, False),
        ("block", "cuda", 1, True),
    ],
)
def test_over_several_ranks_a_network_is_compiled_by_the_block(by, device, ranks, by_block, monkeypatch):
    """So that a block's gradients are there, and sent, while those below it are computed."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=9, dropout=0.0))
    monkeypatch.setattr(GPT, "device", torch.device(device))
    with torch._functorch.config.patch(activation_memory_budget=1.0):
        SummedLoss(network).compile_step(by, alone=ranks == 1)
        assert torch._functorch.config.activation_memory_budget == (0.9 if device == "cpu" else 1.0)
    assert compiled == [run_block if by_block else network.hidden]


@pytest.mark.parametrize(("world_size", "alone"), [(1, True), (2, False)])
def test_the_ranks_decide(world_size, alone):
    asked = []

    class Loss:
        def compile_step(self, by, *, alone):
            asked.append(alone)

    stepper = SimpleNamespace(
        loss=Loss(),
        network=torch.nn.Module(),
        optimizer=SimpleNamespace(zero_grad=lambda: None),
        ranks=SimpleNamespace(world_size=world_size, device=torch.device("cpu"), sum_=lambda tensor: tensor),
        backward=lambda batch, scale: None,
    )
    compile_or_say_why(stepper, (), print)
    assert asked == [alone]


def products_after_the_top_blocks_gradients(loss):
    """Matrix products that the backward pass still makes once the topmost of three blocks has all its gradients."""
    events = []
    for number, block in enumerate(loss.network.blocks):
        for parameter in block.parameters():
            parameter.register_post_accumulate_grad_hook(lambda _, number=number: events.append(number))

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                events.append("product")
            return function(*args, **(kwargs or {}))

    ids = torch.arange(8).reshape(1, 8)
    nats = loss(ids, ids)
    with Products():
        nats.backward()
    top = max(at for at, event in enumerate(events) if event == 2)
    return events[top:].count("product")


@pytest.mark.slow  # compiles twice
def test_a_blocks_gradients_are_there_while_lower_blocks_are_computed(monkeypatch):
    """What DDP sends them by. Compiled whole, all gradients come out of one piece, at its end."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    network = GPT(GPTConfig(n_layer=3, n_head=1, n_embd=8, block_size=8, vocab_size=9, dropout=0.0))
    loss = SummedLoss(network)
    with torch._functorch.config.patch(activation_memory_budget=1.0):
        loss.compile_step(alone=False)
        assert (
            products_after_the_top_blocks_gradients(loss) == 2 * 8
        )  # of a block's backward pass: 4 matrices, twice
        loss.hidden = torch.compile(network.hidden, dynamic=False)
        assert products_after_the_top_blocks_gradients(loss) == 0
