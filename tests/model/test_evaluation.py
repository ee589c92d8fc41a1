import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from myna.data.split import Split
from myna.evaluate.continuations import question, question_scores
from myna.evaluate.loss import CUDA_BATCH_TOKENS, _windows_at_once, validation_sums
from myna.generate.engine import generate
from myna.model import evaluation
from myna.model.attention import kernels_for_any_shape
from myna.model.config import GPTConfig
from myna.model.evaluation import evaluation_mode
from myna.model.gpt2 import GPT

CUDA = torch.device("cuda", 0)


def kernels():
    cuda = torch.backends.cuda
    return {
        "cudnn": cuda.cudnn_sdp_enabled(),
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "order": torch._C._get_sdp_priority_order(),
    }


def test_on_a_gpu_no_kernel_is_left_that_plans_for_each_shape():
    before = kernels()
    assert before["cudnn"]
    network = SimpleNamespace(training=False, device=CUDA)
    with contextlib.suppress(KeyError), evaluation_mode(network):
        inside = kernels()
        assert not inside["cudnn"]
        assert inside["flash"]
        assert inside["efficient"]
        assert inside["math"]
        assert inside["order"][:3] == [int(kernel) for kernel in (1, 2, 0)]  # flash, efficient, math
        raise KeyError
    assert kernels() == before


def test_elsewhere_torch_chooses():
    before = kernels()
    with kernels_for_any_shape(torch.device("cpu")):
        assert kernels() == before


class Counted(Split):
    """The ids 0 to 39."""

    def __init__(self):
        super().__init__("val", [], 99)
        self.n_tokens = 40

    def read(self, start, count, ring=False):
        return np.arange(start, start + count)


def validate(model):
    validation_sums(model, Counted(), None, text_ids=np.ones(99))


def score(model):
    list(question_scores(model, [question([([1, 2], [3]), ([1, 2], [4])], block_size=16, eot=0)]))


def write(model):
    generate(model, torch.tensor([[1, 2, 3]]), max_tokens=2)


@pytest.mark.parametrize("door", [validate, score, write])
def test_every_evaluation_and_every_text_asks_for_such_kernels(door, monkeypatch):
    asked = []
    monkeypatch.setattr(
        evaluation, "kernels_for_any_shape", lambda device: asked.append(device) or contextlib.nullcontext()
    )
    door(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=99, dropout=0.0)))
    assert asked
    assert set(asked) == {torch.device("cpu")}


def test_a_gpu_validates_more_at_once():
    on = {kind: SimpleNamespace(device=torch.device(kind)) for kind in ("cpu", "mps", "cuda")}
    assert {kind: _windows_at_once(model, 1024) for kind, model in on.items()} == {
        "cpu": 8,
        "mps": 8,
        "cuda": 64,
    }
    assert _windows_at_once(on["cuda"], 1024, batch_tokens=2048) == 2
    assert _windows_at_once(on["cuda"], 2 * CUDA_BATCH_TOKENS) == 1
