import pytest
import torch

from myna.errors import DeviceError
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

    monkeypatch.setattr(SummedLoss, "compile_step", lambda self: setattr(self, "hidden", hidden))
    with pytest.raises(DeviceError, match=r"compiling: out of memory; try .*: --micro-batch 2 \(it is 4\);"):
        train(tmp_path / "run", 2, "--compile")
