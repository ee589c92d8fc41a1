import pytest
import torch

from myna.model.loss import IGNORE, head_nats, head_token_nats, token_nats


def make(rows=(2, 7), C=8, V=50, padded=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*rows, C, generator=generator, requires_grad=True)
    weight = torch.randn(padded, C, generator=generator)
    weight[V:] = 3.0  # padding that would matter if it were counted
    targets = torch.randint(0, V, rows, generator=generator)
    targets[0, 2] = IGNORE
    return hidden, weight.requires_grad_(), targets


def plain(hidden, weight, targets, V=50):
    return token_nats((hidden @ weight.t())[..., :V], targets).sum()


@pytest.mark.parametrize("chunk_bytes", [64 * 4, 64 * 4 * 5, 1 << 20])
def test_head_nats_is_the_plain_loss_with_its_gradients(chunk_bytes):
    hidden, weight, targets = make()
    expected = plain(hidden, weight, targets)
    (expected * 0.3).backward()
    wanted = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    nats = head_nats(hidden, weight, targets, 50, chunk_bytes=chunk_bytes)
    (nats * 0.3).backward()
    torch.testing.assert_close(nats, expected)
    torch.testing.assert_close(hidden.grad, wanted[0])
    torch.testing.assert_close(weight.grad, wanted[1])
    assert not weight.grad[50:].any()


@pytest.mark.parametrize("chunk_bytes", [1, 600, 1 << 20])
def test_without_gradients_each_token_is_the_plain_one(chunk_bytes):
    hidden, weight, targets = make()
    with torch.no_grad():
        expected = token_nats((hidden @ weight.t())[..., :50], targets)
        each = head_token_nats(hidden, weight, targets, 50, chunk_bytes=chunk_bytes)
        torch.testing.assert_close(each, expected)
        torch.testing.assert_close(head_nats(hidden, weight, targets, 50), expected.sum())


def test_the_weights_gradient_is_whole_where_it_is_made_in_parts(monkeypatch):
    hidden, weight, targets = make()
    plain(hidden, weight, targets).backward()
    wanted, weight.grad = weight.grad, None
    monkeypatch.setattr("myna.model.loss.CPU_BLOCK_BYTES", 4 * 8 * 7)  # seven columns at a time, and a rest
    head_nats(hidden, weight, targets, 50, chunk_bytes=64 * 4 * 5).backward()
    torch.testing.assert_close(weight.grad, wanted)


def test_head_nats_under_autocast_stays_near():
    hidden, weight, targets = make(rows=(4, 64), C=64)
    with torch.autocast("cpu", torch.bfloat16):
        nats = head_nats(hidden * 0.1, weight, targets, 50)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, plain(hidden * 0.1, weight, targets), rtol=5e-3, atol=0)


def test_compiled_head_nats_is_the_eager_one():
    sides = []
    for compiled in (True, False):
        hidden, weight, targets = make()
        nats = head_nats(hidden, weight, targets, 50, compiled=compiled)
        nats.backward()
        sides.append((nats, hidden.grad, weight.grad))
    torch.testing.assert_close(*sides)


def test_a_batch_of_ignored_targets_costs_nothing():
    hidden, weight, targets = make()
    nats = head_nats(hidden, weight, torch.full_like(targets, IGNORE), 50)
    nats.backward()
    assert nats.item() == 0
    assert not hidden.grad.any()
