import pytest
import torch
from torch._inductor.utils import run_and_get_code

from myna.model import loss
from myna.model.loss import IGNORE, capped, head_nats, head_token_nats, token_nats


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


def block(dtype, rows=24, V=997, padded=1024, device="cpu"):
    """Logits (rows, V) with room for padding beside them, and targets, of which some are ignored."""
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(rows, padded, generator=generator) * 4).to(device, dtype)[:, :V]
    targets = torch.randint(0, V, (rows,), generator=generator)
    targets[::5], targets[1], targets[2] = IGNORE, 0, V - 1
    return logits, targets.to(device)


def by_scatter(logits, targets, softcap):
    """What `_block_nats` does, with the softmax written out."""
    scored = (targets != IGNORE)[:, None]
    column = torch.where(scored, targets[:, None], 0)
    bounded = capped(logits.float(), softcap)
    largest = bounded.amax(dim=1, keepdim=True)
    log_p = bounded - largest - (bounded - largest).exp().sum(dim=1, keepdim=True).log()
    at_target = log_p.gather(1, column)
    gradient = log_p.exp().to(logits.dtype).mul_(scored)
    gradient.scatter_(1, column, torch.where(scored, at_target.exp() - 1, 0.0).to(logits.dtype))
    if softcap is not None:
        gradient.mul_(1 - (bounded / softcap).square())
    return torch.where(scored, -at_target, 0.0).squeeze(1), gradient


def same_bits(a, b):
    whole = {2: torch.int16, 4: torch.int32}[a.itemsize]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(whole), b.contiguous().view(whole))


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_by_comparison_each_bit_is_that_of_gather_and_scatter(dtype, softcap):
    logits, targets = block(dtype)
    expected = by_scatter(logits, targets, softcap)
    plain = logits.clone()
    near = loss._block_nats(plain, targets, softcap), plain
    found = loss._block_nats_by_comparison(logits, targets, softcap), logits
    assert all(map(same_bits, found, expected))
    # torch's own softmax adds in another order.
    torch.testing.assert_close(found, near, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)


def test_a_gpu_compiles_the_comparison_and_a_cpu_the_scatter(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    compiled = loss._compiled_block_nats.__wrapped__
    assert compiled(on_cpu=True) is loss._block_nats
    assert compiled(on_cpu=False) is loss._block_nats_by_comparison


def compiled_code(function, logits, targets):
    (nats, *_), (code,) = run_and_get_code(lambda: (torch.compile(function, dynamic=False)(logits, targets),))
    return nats, code


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_comparison_compiles_to_one_kernel_without_a_copy_of_the_logits(dtype):
    found, copies = [], []
    for function in (loss._block_nats, loss._block_nats_by_comparison):
        logits, targets = block(dtype)
        nats, code = compiled_code(function, logits, targets)
        assert code.count('extern "C"') == 1
        copies.append(code.count("empty_strided_cpu((24, 997)"))
        found.append((nats, logits))
    assert copies == [1, 0]
    assert all(map(same_bits, *found))


@pytest.mark.gpu
def test_on_a_gpu_the_block_is_one_kernel():
    logits, targets = block(torch.bfloat16, rows=256, V=50257, padded=50304, device="cuda")
    _, code = compiled_code(loss._block_nats_by_comparison, logits, targets)
    assert code.count("async_compile.triton(") == 1
    assert "empty_strided_cuda((256, 50257)" not in code


@pytest.mark.parametrize("rows", [1, 127, 128, 1000, 8192, 12 * 1024, 64 * 1024, 65_000])
@pytest.mark.parametrize("most", [1, 300, 2668, 23_000])
def test_pieces_on_a_gpu_are_whole_tiles_and_equal_where_they_can_be(rows, most):
    piece = loss._rows_at_once(rows, most, "cuda")
    assert piece % 128 == 0
    assert piece <= max(128, most)
    pieces = -(-rows // piece)
    assert pieces <= 2 * -(-rows // max(128, most // 128 * 128))
    if rows & (rows - 1) == 0 and rows >= 128:
        assert rows % piece == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("V", "padded"), [(50, 64), (257, 384), (50257, 50304)])
def test_padding_in_the_product_changes_no_bit_of_a_loss(V, padded, dtype):
    hidden, weight, targets = make(rows=(2, 20), C=64, V=V, padded=padded)
    hidden, targets = hidden.detach().to(dtype), targets.clamp(max=V - 1)
    cut = token_nats(hidden @ weight[:V].detach().to(dtype).t(), targets)
    assert same_bits(head_token_nats(hidden, weight, targets, V), cut)
