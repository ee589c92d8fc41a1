import contextlib
import math
import weakref
from dataclasses import replace

import pytest
import torch

from myna.device import Precision
from myna.errors import DivergedError
from myna.model.loss import token_nats
from myna.settings import NO_OPTIONS
from myna.train import step as steps
from myna.train.build import new_network, new_stepper
from myna.train.machines.ranks import Ranks
from myna.train.recipe import Recipe
from myna.train.step import Stepper

RECIPE = Recipe(
    n_layer=2, n_head=2, n_embd=32, block_size=16, sequence_length=16, batch_tokens=128, learning_rate=1e-2
)
CPU = torch.device("cpu")


def stepper(precision="fp32", **recipe):
    recipe = replace(RECIPE, **recipe)
    network = new_network(replace(recipe, seed=0), 100, CPU)  # the same weights whatever seeds dropout
    return new_stepper(recipe, network, Ranks(0, 1, CPU), Precision(precision, "test"))


def batch(seed=0):
    ids = torch.randint(0, 100, (8, 17), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def run(it, steps=3, parts=1, step_targets=128):
    results = []
    for step in range(steps):
        ids, targets = batch(step)
        batches = iter(list(zip(ids.chunk(parts), targets.chunk(parts), strict=True)))
        results.append(
            it.step(step, batches, accumulate=parts, step_targets=step_targets, learning_rate=1e-2)
        )
    return results


def weights(it):
    return torch.cat([p.detach().flatten() for p in it.network.parameters()])


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_add_up_to_the_batch(parts):
    whole, split = stepper(), stepper()
    a, b = run(whole), run(split, parts=parts)
    torch.testing.assert_close(
        weights(whole), weights(split), atol=1e-4, rtol=1e-3
    )  # Adam magnifies rounding
    assert [r.loss for r in a] == pytest.approx([r.loss for r in b], abs=1e-6)
    assert [r.grad_norm for r in a] == pytest.approx([r.grad_norm for r in b], rel=1e-5)


def test_the_loss_and_the_update_are_what_they_say():
    """Against the plain way: mean cross-entropy, clipping, and AdamW written out from its paper."""
    it, plain = stepper(), stepper()
    ids, targets = batch()
    loss = token_nats(plain.network(ids), targets).mean()
    loss.backward()
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in plain.network.parameters()))
    result = run(it, steps=1)[0]
    assert result.loss == pytest.approx(loss.item(), abs=1e-6)
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)
    for mine, its in zip(it.network.parameters(), plain.network.parameters(), strict=True):
        g = its.grad * min(1.0, 1.0 / (norm + 1e-6))
        decay = 0.1 if its.dim() >= 2 else 0.0
        # First step of AdamW: both bias-corrected means are g and g^2.
        expected = its.detach() * (1 - 1e-2 * decay) - 1e-2 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(mine.detach(), expected, atol=3e-5, rtol=0)  # the update is 1e-2


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_a_gradient_is_clipped_unless_the_norm_is_0(clip_norm):
    it, seen = stepper(clip_norm=clip_norm), []
    it.optimizer.step = lambda: seen.append(
        math.sqrt(sum(float((p.grad**2).sum()) for p in it.network.parameters()))
    )
    (result,) = run(it, steps=1)
    assert result.grad_norm > 0.1
    assert seen == [pytest.approx(clip_norm or result.grad_norm, rel=1e-3)]


def test_padding_rows_stay_zero():
    it = stepper()
    run(it)
    assert not it.network.wte.weight[100:].any()
    assert not it.optimizer.named_state()["exp_avg.wte.weight"][100:].any()


def test_dropout_is_a_function_of_seed_and_step():
    a, b, other = stepper(dropout=0.3), stepper(dropout=0.3), stepper(dropout=0.3, seed=1)
    run(a, steps=1)
    torch.rand(7)  # whatever else draws in between
    run(b, steps=1)
    run(other, steps=1)
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(other))


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_what_is_not_finite_stops_before_the_update(where):
    it = stepper()
    if where == "weight":
        with torch.no_grad():
            it.network.h[0].mlp.c_fc.weight[0, 0] = math.nan
    else:
        it.network.wpe.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(it)
    with pytest.raises(DivergedError, match="step 1"):
        run(it, steps=1)
    assert torch.equal(weights(it).nan_to_num(7.0), before.nan_to_num(7.0))


def spoil(it, where):
    """Has the loss, or a gradient, not be finite."""
    if where == "gradient":
        return it.network.wpe.weight.register_hook(lambda gradient: gradient * math.inf)
    backward = it.backward
    it.backward = lambda batch, scale: backward(batch, scale) * math.nan  # the gradient is sound
    return None


def test_the_update_is_torchs_own_bit_for_bit():
    """Clipping by torch, then its fused AdamW."""
    it, plain = stepper(clip_norm=0.1), stepper()
    (part,) = plain.optimizer.parts
    for step, result in enumerate(run(it, steps=4)):
        ids, targets = batch(step)
        (plain.loss(ids, targets) * (1 / 128)).backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.network.parameters(), 0.1)
        for group in part.optimizer.param_groups:
            group["lr"] = 1e-2
        part.optimizer.step()
        part.optimizer.zero_grad()
        assert result.grad_norm == float(norm)
    assert torch.equal(weights(it), weights(plain))


@pytest.mark.parametrize("clip_norm", [0.0, 1e6])
def test_an_update_that_the_host_has_not_read_is_the_same_bit_for_bit(clip_norm):
    """The way of a GPU, on the CPU, where nothing is clipped."""
    first, unread = stepper(clip_norm=clip_norm), stepper(clip_norm=clip_norm)
    unread.updates_before_reading = True
    assert run(first, steps=5) == run(unread, steps=5)
    assert torch.equal(weights(first), weights(unread))


def test_a_clipped_update_that_the_host_has_not_read_is_the_same_up_to_rounding():
    """It divides by what the other way multiplies with, and Adam magnifies the rounding of tiny gradients."""
    first, unread = stepper(clip_norm=0.1), stepper(clip_norm=0.1)
    unread.updates_before_reading = True
    for more, atol in ((1, 1e-6), (4, 1e-5)):  # an update is 1e-2
        a, b = run(first, steps=more), run(unread, steps=more)
        assert a[0].grad_norm > 0.1
        torch.testing.assert_close(weights(first), weights(unread), atol=atol, rtol=0)
        assert [r.grad_norm for r in a] == pytest.approx([r.grad_norm for r in b], rel=1e-4)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("after", [0, 2])
def test_an_update_that_the_host_has_not_read_is_left_out_where_something_is_not_finite(where, after):
    it = stepper(average_decay=0.9)
    it.updates_before_reading = True
    run(it, steps=after)
    before, average = weights(it), {name: value.clone() for name, value in it.average.values.items()}
    state = {name: tensor.clone() for name, tensor in it.optimizer.named_state().items()}
    spoil(it, where)
    with pytest.raises(DivergedError, match=r"step 1: .*, from rank 0 of 1; nothing was updated"):
        run(it, steps=1)
    assert torch.equal(weights(it), before)
    assert all(torch.equal(value, average[name]) for name, value in it.average.values.items())
    for name, tensor in it.optimizer.named_state().items():
        assert torch.equal(tensor, state.get(name, torch.zeros_like(tensor)))


def test_a_rank_whose_own_gradient_is_finite_is_not_named():
    """The norm overflows, but no gradient is infinite or NaN, except that of a weight that is not trained."""
    it = stepper()
    it.first_new_row = 90
    spoil(it, "gradient")
    largest = []

    def enlarge(gradient):
        largest.append(float(gradient[90:].abs().max()))
        return gradient / largest[0] * 3e38

    it.network.wte.weight.register_hook(enlarge)
    with pytest.raises(DivergedError, match="step 1: the gradient's norm is inf; nothing was updated"):
        run(it, steps=1)
    assert largest[1] == pytest.approx(largest[0])


def test_an_overflow_in_fp16_is_left_out_unread_too():
    first, unread = stepper("fp16", clip_norm=0.0), stepper("fp16", clip_norm=0.0)
    unread.updates_before_reading = True
    before, scale = weights(unread), unread.scaler.get_scale()
    for it in (first, unread):
        overflow = spoil(it, "gradient")
        (skipped,) = run(it, steps=1)
        overflow.remove()
        assert not skipped.updated
        assert torch.equal(weights(it), before)
        assert it.scaler.get_scale() == scale / 2
    assert run(first, steps=3) == run(unread, steps=3)
    assert torch.equal(weights(first), weights(unread))


def test_whoever_may_stop_an_update_is_told_the_loss_first():
    it, told = stepper(), []
    it.updates_before_reading = True
    before = weights(it)

    def stop(loss):
        told.append(loss)
        raise DivergedError("a spike")

    batches, rest = iter([batch()]), {"accumulate": 1, "step_targets": 128, "learning_rate": 1e-2}
    with pytest.raises(DivergedError, match="a spike"):
        it.step(0, batches, before_update=stop, **rest)
    assert told == [pytest.approx(4.6, abs=0.2)]
    assert torch.equal(weights(it), before)


def test_a_gpu_updates_before_reading_where_the_optimizer_can_skip(monkeypatch):
    """Muon's own update can't, and neither can AdamW beside it: all parts make an update or none."""
    monkeypatch.setattr(steps.torch.amp, "GradScaler", lambda *args, **options: None)
    for optimizer, can in (("adamw", True), ("sgd", True), ("adam", True), ("muon", False)):
        it = stepper(optimizer=optimizer, optimizer_options=NO_OPTIONS)
        assert it.optimizer.skips_on_device is can
        assert not it.updates_before_reading
        gpu = Ranks(0, 1, torch.device("cuda"))
        on_gpu = Stepper(it.network, it.optimizer, ranks=gpu, precision=it.precision, clip_norm=1.0, seed=0)
        assert on_gpu.updates_before_reading is can


def test_fp16_scales_its_loss_and_skips_an_overflow():
    it, plain = stepper("fp16"), stepper()
    before, scale = weights(it), it.scaler.get_scale()
    overflow = it.network.wpe.weight.register_hook(lambda gradient: gradient * math.inf)
    (skipped,) = run(it, steps=1)
    overflow.remove()
    assert not skipped.updated
    assert torch.equal(weights(it), before)
    assert it.scaler.get_scale() == scale / 2
    results, expected = run(it, steps=12), run(plain, steps=12)
    assert all(r.updated for r in results)
    assert [r.loss for r in results] == pytest.approx([r.loss for r in expected], abs=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_stay_fp32(precision):
    it = stepper(precision)
    run(it, steps=2)
    assert {p.dtype for p in it.network.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in it.optimizer.named_state().values()} == {torch.float32}


def test_bf16_is_near_fp32():
    a, b = run(stepper("bf16"), steps=5), run(stepper(), steps=5)
    assert [r.loss for r in a] == pytest.approx([r.loss for r in b], abs=0.03)


def test_compiled_is_near_eager():
    a, b = stepper(), stepper()
    a.loss.compile_step()
    run(a)
    run(b)
    torch.testing.assert_close(weights(a), weights(b), atol=1e-4, rtol=1e-3)


def test_on_a_gpu_a_micro_batch_is_tried_beside_gradients_and_the_optimizers_state(monkeypatch):
    """Of a later step; or the first that needs them runs out of memory."""
    it, seen, held = stepper(), [], []
    backward, empty = it.backward, torch.empty

    def noted(batch, scale):
        seen.append((held[0]().nbytes, it.network.wpe.weight.grad is not None))
        return backward(batch, scale)

    def on_the_cpu(size, dtype, device):
        assert device.type == "cuda"
        tensor = empty(size, dtype=dtype)
        held.append(weakref.ref(tensor))
        return tensor

    it.backward = noted
    it.ranks = replace(it.ranks, device=torch.device("cuda"))
    monkeypatch.setattr(steps.torch, "empty", on_the_cpu)
    monkeypatch.setattr(Precision, "autocast", lambda self, device: contextlib.nullcontext())
    it.try_out(batch())
    state = it.optimizer.memory_bytes()
    assert seen == [(state, False), (state, True)]
    assert held[0]() is None
    assert all(p.grad is None for p in it.network.parameters())


def test_on_a_cpu_a_micro_batch_is_tried_once_and_forgotten():
    it = stepper()
    before = weights(it)
    it.try_out(batch())
    assert torch.equal(weights(it), before)
    assert not it.optimizer.has_state()
    assert all(p.grad is None for p in it.network.parameters())
