import pytest
import torch
import torch.nn.functional as F

from myna.model.attention import QUERIES, blocked_attention, causal_attention, join_heads, split_heads


def reference(qkv, n_head):
    """torch's own attention, in fp64."""
    q, k, v = split_heads(qkv.double(), n_head)
    return join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))


def with_gradient(attention, qkv, n_head):
    qkv = qkv.detach().requires_grad_()
    y = attention(qkv, n_head)
    toward = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (gradient,) = torch.autograd.grad(y, qkv, toward)
    return y.detach(), gradient


def error(a, b):
    return float((a.double() - b).norm() / b.norm())


# One block, a whole number of them, and a last one that is short; head widths that are a power of four and not.
@pytest.mark.parametrize(
    ("T", "n_head", "width"), [(1, 1, 8), (5, 3, 24), (QUERIES * 2, 2, 16), (QUERIES + 77, 2, 80)]
)
def test_blocked_attention_is_attention(T, n_head, width):
    qkv = torch.randn(2, T, 3 * n_head * width, dtype=torch.float64)
    for ours, expected in zip(
        with_gradient(blocked_attention, qkv, n_head), with_gradient(reference, qkv, n_head), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_in_bf16_it_errs_as_bf16_does():
    qkv = torch.randn(2, 600, 3 * 4 * 64).bfloat16()
    for ours, expected in zip(
        with_gradient(blocked_attention, qkv, 4), with_gradient(reference, qkv, 4), strict=True
    ):
        assert error(ours, expected) < 0.01  # bf16 has 8 bits: 0.004 a rounding


def test_the_operator_is_well_formed():
    qkv = torch.randn(2, 9, 3 * 2 * 8, requires_grad=True)
    torch.library.opcheck(blocked_attention, (qkv, 2))
    assert torch.autograd.gradcheck(lambda x: blocked_attention(x, 2), qkv.double(), eps=1e-6)


def test_training_in_bf16_on_a_cpu_takes_it_and_nothing_else_does(monkeypatch):
    used = []
    monkeypatch.setattr(
        "myna.model.attention.blocked_attention",
        lambda qkv, n_head: used.append(qkv.dtype) or blocked_attention(qkv, n_head),
    )
    qkv = torch.randn(1, 8, 3 * 16)
    causal_attention(qkv, 2)
    causal_attention(qkv.bfloat16(), 2, dropout=0.1)
    with torch.no_grad():
        causal_attention(qkv.bfloat16(), 2)
    assert used == []
    y = causal_attention(qkv.bfloat16(), 2)
    assert used == [torch.bfloat16]
    torch.testing.assert_close(y, reference(qkv, 2).bfloat16(), atol=0.02, rtol=0.02)


def test_a_position_does_not_see_those_after_it():
    qkv = torch.randn(1, QUERIES + 9, 3 * 16)
    changed = qkv.clone()
    changed[:, QUERIES + 3 :] += 1
    before, after = blocked_attention(qkv, 2), blocked_attention(changed, 2)
    assert torch.equal(before[:, : QUERIES + 3], after[:, : QUERIES + 3])
    assert not torch.equal(before[:, QUERIES + 3 :], after[:, QUERIES + 3 :])
