import pytest
import torch

from myna.bench import online_softmax
from myna.bench.lecture import four_operations, future_of
from myna.bench.online_softmax import OnlineSoftmax


def results(way, length, dtype):
    """Result and gradients of a way, from the same numbers."""
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, 3, length, 8, generator=generator).to(dtype).requires_grad_() for _ in "qkv")
    grad = torch.randn(2, 3, length, 8, generator=generator).to(dtype)
    y = way(3 * q, k, v)  # scores large enough to move the maximum from block to block
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), grad)]


# One position, part of a block, whole blocks, and a part after whole blocks.
@pytest.mark.parametrize("length", [1, 5, 16, 37])
def test_it_is_the_four_operations(length, monkeypatch):
    monkeypatch.setattr(online_softmax, "BLOCK", 8)
    expected = results(lambda q, k, v: four_operations(q, k, v, future_of(length)), length, torch.float32)
    for found, right in zip(results(OnlineSoftmax.apply, length, torch.float32), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


def test_in_bf16_it_is_about_as_near_as_they_are():
    def four(q, k, v):
        return four_operations(q, k, v, future_of(300))

    exact, theirs = (results(four, 300, dtype) for dtype in (torch.float32, torch.bfloat16))
    for found, other, right in zip(
        results(OnlineSoftmax.apply, 300, torch.bfloat16), theirs, exact, strict=True
    ):
        assert found.dtype == torch.bfloat16
        assert (found - right).norm() < 1.5 * (other - right).norm()
