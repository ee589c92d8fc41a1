import pytest
import torch

from myna.errors import DeviceError
from myna.model.config import GPTConfig
from myna.model.decoder import run_block
from myna.model.gpt2 import GPT
from myna.train import step
from myna.train.step import SummedLoss


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

    monkeypatch.setattr(SummedLoss, "compile_step", lambda self, by: setattr(self, "hidden", hidden))
    with pytest.raises(DeviceError, match=r"compiling: out of memory; try .*: --micro-batch 2 \(it is 4\);"):
        train(tmp_path / "run", 2, "--compile")


@pytest.mark.parametrize(
    ("by", "device", "sharded", "by_block"),
    [
        ("auto", "cpu", False, True),
        ("auto", "cpu", True, True),
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),
        ("network", "cpu", False, False),
        ("block", "cuda", False, True),
    ],
)
def test_the_pieces_that_are_compiled(by, device, sharded, by_block, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    monkeypatch.setattr(step, "is_sharded", lambda network: sharded)
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=9, dropout=0.0))
    monkeypatch.setattr(GPT, "device", torch.device(device))
    with torch._functorch.config.patch(activation_memory_budget=1.0):
        SummedLoss(network).compile_step(by)
        assert torch._functorch.config.activation_memory_budget == (0.9 if device == "cpu" else 1.0)
    assert compiled == [run_block if by_block else network.hidden]
