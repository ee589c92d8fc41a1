import copy
import math

import pytest
import torch

from myna import GPT, GPTConfig
from myna.errors import DivergedError
from myna.model.loss import token_nats
from myna.train.optim import make_optimizer, optimizer_tensors, restore_optimizer
from myna.train.ranks import Precision, Ranks
from myna.train.recipe import Recipe
from myna.train.step import Stepper

RECIPE = Recipe(
    n_layer=2, n_head=2, n_embd=32, block_size=16, sequence_length=16, batch_tokens=128, learning_rate=1e-2
)
CPU = torch.device("cpu")


def stepper(precision="fp32", dropout=0.0, seed=0):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=100, dropout=dropout))
    return Stepper(
        model,
        make_optimizer(model, RECIPE),
        ranks=Ranks(0, 1, CPU),
        precision=Precision(precision, "test"),
        clip_norm=1.0,
        seed=seed,
    )


def batch(seed=0):
    ids = torch.randint(0, 100, (8, 17), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def run(it, steps=3, parts=1, step_tokens=128):
    results = []
    for step in range(steps):
        ids, targets = batch(step)
        batches = iter(list(zip(ids.chunk(parts), targets.chunk(parts), strict=True)))
        results.append(it.step(step, batches, accumulate=parts, step_tokens=step_tokens, learning_rate=1e-2))
    return results


def weights(it):
    return torch.cat([p.detach().flatten() for p in it.gpt.parameters()])


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
    loss = token_nats(plain.gpt(ids), targets).mean()
    loss.backward()
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in plain.gpt.parameters()))
    result = run(it, steps=1)[0]
    assert result.loss == pytest.approx(loss.item(), abs=1e-6)
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)
    for mine, its in zip(it.gpt.parameters(), plain.gpt.parameters(), strict=True):
        g = its.grad * min(1.0, 1.0 / (norm + 1e-6))
        decay = 0.1 if its.dim() >= 2 else 0.0
        # First step of AdamW: both bias-corrected means are g and g^2.
        expected = its.detach() * (1 - 1e-2 * decay) - 1e-2 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(mine.detach(), expected, atol=3e-5, rtol=0)  # the update is 1e-2


def test_only_matrices_decay():
    it = stepper()
    decayed, plain = it.optimizer.param_groups
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert sum(len(g["params"]) for g in it.optimizer.param_groups) == len(list(it.gpt.parameters()))


def test_padding_rows_stay_zero():
    it = stepper()
    run(it)
    assert not it.gpt.wte.weight[100:].any()
    assert not it.optimizer.state[it.gpt.wte.weight]["exp_avg"][100:].any()


def test_dropout_is_a_function_of_seed_and_step():
    a, b, other = stepper(dropout=0.3), stepper(dropout=0.3), stepper(dropout=0.3, seed=1)
    run(a, steps=1)
    torch.rand(7)  # whatever else draws in between
    run(b, steps=1)
    run(other, steps=1)
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(other))


def test_moments_come_back_bit_for_bit():
    a, b = stepper(), stepper()
    run(a, steps=2)
    b.gpt.load_state_dict(a.gpt.state_dict())
    restore_optimizer(b.optimizer, b.gpt, copy.deepcopy(optimizer_tensors(a.optimizer, a.gpt)), step=2)
    for it in (a, b):
        ids, targets = batch(9)
        it.step(2, iter([(ids, targets)]), accumulate=1, step_tokens=128, learning_rate=1e-2)
    assert torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_what_is_not_finite_stops_before_the_update(where):
    it = stepper()
    if where == "weight":
        with torch.no_grad():
            it.gpt.h[0].mlp.c_fc.weight[0, 0] = math.nan
    else:
        it.gpt.wpe.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(it)
    with pytest.raises(DivergedError, match="step 1"):
        run(it, steps=1)
    assert torch.equal(weights(it).nan_to_num(7.0), before.nan_to_num(7.0))


def test_fp16_scales_its_loss_and_skips_an_overflow():
    it, plain = stepper("fp16"), stepper()
    before, scale = weights(it), it.scaler.get_scale()
    overflow = it.gpt.wpe.weight.register_hook(lambda gradient: gradient * math.inf)
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
    assert {p.dtype for p in it.gpt.parameters()} == {torch.float32}
    assert {s["exp_avg"].dtype for s in it.optimizer.state.values()} == {torch.float32}


def test_bf16_is_near_fp32():
    a, b = run(stepper("bf16"), steps=5), run(stepper(), steps=5)
    assert [r.loss for r in a] == pytest.approx([r.loss for r in b], abs=0.03)


def test_compiled_is_near_eager():
    a, b = stepper(), stepper()
    a.loss.compile_step()
    run(a)
    run(b)
    torch.testing.assert_close(weights(a), weights(b), atol=1e-4, rtol=1e-3)
