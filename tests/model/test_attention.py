import pytest
import torch
import torch.nn.functional as F

from myna.model import attention as source
from myna.model.attention import (
    QUERIES,
    attention,
    attention_map,
    blocked_attention,
    join_heads,
    split_heads,
)
from myna.model.cache import KVCache


def reference(q, k, v):
    """torch's own attention, in fp64."""
    return join_heads(F.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True))


def heads(B, T, n_head, width, dtype=torch.float32):
    return tuple(torch.randn(B, n_head, T, width, dtype=dtype) for _ in range(3))


def with_gradients(attention, qkv):
    qkv = [part.detach().requires_grad_() for part in qkv]
    y = attention(*qkv)
    toward = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, qkv, toward)]


def error(a, b):
    return float((a.double() - b).norm() / b.norm())


def test_heads_lie_side_by_side():
    qkv = torch.arange(2 * 3 * 12.0).view(2, 3, 12)
    q, _, v = split_heads(qkv, 2)
    assert torch.equal(join_heads(q), qkv[..., :4])
    assert torch.equal(join_heads(v), qkv[..., 8:])
    assert torch.equal(v[:, 1], qkv[..., 10:])


# One block, a whole number of them, and a last one that is short; head widths that are a power of four and not.
@pytest.mark.parametrize(
    ("T", "n_head", "width"), [(1, 1, 8), (5, 3, 24), (QUERIES * 2, 2, 16), (QUERIES + 77, 2, 80)]
)
def test_blocked_attention_is_attention(T, n_head, width):
    qkv = heads(2, T, n_head, width, torch.float64)
    for ours, expected in zip(
        with_gradients(blocked_attention, qkv), with_gradients(reference, qkv), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_in_bf16_it_errs_as_bf16_does():
    qkv = heads(2, 600, 4, 64, torch.bfloat16)
    for ours, expected in zip(
        with_gradients(blocked_attention, qkv), with_gradients(reference, qkv), strict=True
    ):
        assert error(ours, expected) < 0.01  # bf16 has 8 bits: 0.004 a rounding


def test_the_operator_is_well_formed():
    qkv = tuple(part.requires_grad_() for part in heads(2, 9, 2, 8))
    torch.library.opcheck(blocked_attention, qkv)
    assert torch.autograd.gradcheck(blocked_attention, tuple(part.double() for part in qkv), eps=1e-6)


def test_training_in_bf16_on_a_cpu_takes_it_and_nothing_else_does(monkeypatch):
    used = []
    monkeypatch.setattr(
        "myna.model.attention.blocked_attention", lambda *qkv: used.append(1) or blocked_attention(*qkv)
    )
    full, low = heads(1, 8, 2, 8), heads(1, 8, 2, 8, torch.bfloat16)
    attention(*full)
    attention(*low, dropout=0.1)
    attention(*low, cache=KVCache((1, 1, 2, 8, 8), "cpu").layer(0))
    with torch.no_grad():
        attention(*low)
    assert not used
    y = attention(*low)
    assert used
    torch.testing.assert_close(y, reference(*low).bfloat16(), atol=0.02, rtol=0.02)


def test_a_position_does_not_see_those_after_it():
    qkv = heads(1, QUERIES + 9, 2, 8)
    changed = [torch.cat([part[:, :, : QUERIES + 3], part[:, :, QUERIES + 3 :] + 1], dim=2) for part in qkv]
    before, after = blocked_attention(*qkv), blocked_attention(*changed)
    assert torch.equal(before[:, : QUERIES + 3], after[:, : QUERIES + 3])
    assert not torch.equal(before[:, QUERIES + 3 :], after[:, QUERIES + 3 :])


def test_the_mask_of_a_map_is_on_the_device_of_the_queries(monkeypatch):
    """The meta device stands for a GPU. It takes a mask of the CPU, too, so look at the mask itself."""
    masks, made = [], source._mask
    monkeypatch.setattr(source, "_mask", lambda *given: masks.append(made(*given)) or masks[-1])
    q = torch.zeros(1, 2, 3, 4, device="meta")
    assert attention_map(q, q).device == q.device
    assert [mask.device for mask in masks] == [q.device]


@pytest.mark.gpu
def test_a_map_on_a_gpu_is_that_of_the_cpu():
    q, k, _ = heads(1, 9, 2, 8)
    torch.testing.assert_close(attention_map(q.cuda(), k.cuda()).cpu(), attention_map(q, k))
