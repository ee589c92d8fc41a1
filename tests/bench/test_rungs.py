import dataclasses

import pytest
import torch
import torch.nn.functional as F

from myna import GPT, GPTConfig
from myna.bench.ladder import LADDER, switches
from myna.bench.lecture import LectureGPT
from myna.bench.rungs import lecture_step, make_step
from myna.train.recipe import Recipe

STEPS = 5
# Nats, of a loss of about ln 300 = 5.7. In fp32 the rungs differ by the order of sums; in bf16 by its 8 bits.
FP32_BOUND, BF16_BOUND = 2e-5, 0.02
SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 48, "sequence_length": 48}


@pytest.fixture(autouse=True)
def settings_as_they_were(monkeypatch):
    """What a rung sets for its process, this one outlives."""
    monkeypatch.setattr("myna.bench.rungs.keep_freed_memory", lambda: True)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def losses(rung: str, without: list[str], *, compile: bool, **fields: float) -> list[float]:
    """Of the first steps of a rung on a tiny model, with the same weights and batches each time."""
    precision = "fp32" if "bf16" in without or rung in ("fp32", "tf32") else "bf16"
    recipe = Recipe(**SMALL, batch_tokens=48, precision=precision, compile=compile, **fields)
    torch.manual_seed(0)
    gpt = GPT(recipe.network_config(vocab_size=300))
    ids = torch.randint(300, (2, 3, 49))
    batches = [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]
    step, failure = make_step(rung, gpt, recipe, batches, without)
    assert step.compiled == (compile and ("compile" not in without or rung == "ours"))
    assert not failure
    return [step() for _ in range(STEPS)]


NAMES = [rung.name for rung in LADDER if rung.name not in ("fp32", "compile")]


@pytest.mark.parametrize("name", NAMES)
def test_every_rung_computes_the_same_loss_in_fp32(name):
    first = losses("fp32", ["tf32", "fp16", "bf16", "compile"], compile=False)
    assert first[0] - first[-1] > 0.1  # the steps do something
    now = losses(name, ["tf32", "fp16", "bf16", "compile"], compile=False)
    assert now == pytest.approx(first, abs=FP32_BOUND, rel=0)


def test_a_recipe_without_clipping_has_the_same_loss_too():
    without = ["tf32", "fp16", "bf16", "compile"]
    first, ours = (losses(name, without, compile=False, clip_norm=0.0) for name in ("fp32", "ours"))
    assert first[0] - first[-1] > 0.1
    assert ours == pytest.approx(first, abs=FP32_BOUND, rel=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tf32"])
def test_every_rung_computes_the_same_loss_in_bf16(name):
    first = losses("fp32", ["tf32", "compile"], compile=False)
    now = losses(name, ["tf32", "compile"], compile=False)
    assert now == pytest.approx(first, abs=BF16_BOUND, rel=0)
    # bf16 is on. fp16 has three bits more, and a network as small as this one is as near in it as in fp32.
    assert name == "fp16" or now != pytest.approx(first, abs=FP32_BOUND, rel=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compile", "flash-attention", "padded-vocabulary", "fused-adamw", "ours"])
def test_compiled_rungs_compute_the_same_loss(name):
    first = losses("fp32", ["tf32", "fp16", "bf16"], compile=False)
    assert losses(name, ["tf32", "fp16", "bf16"], compile=True) == pytest.approx(first, abs=FP32_BOUND, rel=0)
    assert losses(name, ["tf32"], compile=True) == pytest.approx(first, abs=BF16_BOUND, rel=0)


def lecture(**on: bool):
    recipe = Recipe(**SMALL, batch_tokens=48)
    torch.manual_seed(0)
    ids = torch.randint(300, (1, 49))
    gpt = GPT(recipe.network_config(vocab_size=300))
    return lecture_step(gpt, recipe, [(ids[:, :-1], ids[:, 1:])], dataclasses.replace(switches("fp32"), **on))


def test_attention_is_written_out_until_its_rung(monkeypatch):
    calls = []
    whole = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or whole(*a, **k))
    lecture()()
    assert not calls
    lecture(flash_attention=True)()
    assert len(calls) == 2  # a layer


@pytest.mark.parametrize(("padded", "rows"), [(False, 50257), (True, 50304)])
def test_the_table_has_exactly_its_rows(padded, rows):
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8)
    model = LectureGPT.with_weights(config, GPT(config).state_dict(), flash=False, padded=padded)
    assert model.wte.weight.shape == (rows, 8)
    assert model.wte.weight.untyped_storage().nbytes() == rows * 8 * 4
    model(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64)).backward()
    assert model.wte.weight.grad[50257:].abs().sum() == 0


def test_the_optimizer_is_fused_from_its_rung_on():
    assert [lecture(fused_adamw=fused).optimizer.defaults["fused"] for fused in (False, True)] == [None, True]
    # False would be slower than what AdamW does by itself: it would also switch the lists of CUDA off.
    assert lecture().optimizer.defaults["foreach"] is None


def test_bf16_takes_the_place_of_fp16_and_has_no_scaler():
    steps = [lecture(), lecture(fp16=True), lecture(fp16=True, bf16=True)]
    assert [step.dtype for step in steps] == [None, torch.float16, torch.bfloat16]
    assert [step.scaler.is_enabled() for step in steps] == [False, True, False]


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_whose_gradients_overflow_is_left_out_and_counted(fused):
    step = lecture(fp16=True, fused_adamw=fused)
    weight = step.model.ln_f.weight
    before = weight.detach().clone()
    handle = weight.register_hook(lambda gradient: gradient * float("inf"))
    step()
    assert torch.equal(weight, before)
    handle.remove()
    step()
    assert not torch.equal(weight, before)
    assert step.skipped_updates() == 1


def test_ours_in_fp16_counts_them_too():
    recipe = Recipe(**SMALL, batch_tokens=48, precision="fp16", compile=False)
    ids = torch.randint(300, (1, 49))
    gpt = GPT(recipe.network_config(vocab_size=300))
    step, _ = make_step("ours", gpt, recipe, [(ids[:, :-1], ids[:, 1:])], [])
    handle = gpt.ln_f.weight.register_hook(lambda gradient: gradient * float("inf"))
    step()
    handle.remove()
    step()
    assert step.skipped_updates() == 1


@pytest.mark.parametrize(("tf32", "precision"), [(False, "highest"), (True, "high")])
def test_tf32_is_asked_of_torch(tf32, precision):
    lecture(tf32=tf32)
    assert torch.get_float32_matmul_precision() == precision


def test_the_lectures_network_is_gpt2():
    config = GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=48, vocab_size=300)
    torch.manual_seed(0)
    gpt = GPT(config)
    ids, targets = torch.randint(300, (2, 3, 48))
    loss = F.cross_entropy(gpt(ids).flatten(0, 1), targets.flatten())
    for flash in (False, True):
        model = LectureGPT.with_weights(config, gpt.state_dict(), flash=flash, padded=flash)
        torch.testing.assert_close(model(ids, targets), loss, rtol=0, atol=2e-6)


def test_ours_keeps_freed_memory_on_a_cpu(monkeypatch):
    calls = []
    monkeypatch.setattr("myna.bench.rungs.keep_freed_memory", lambda: calls.append(1))
    losses("ours", ["bf16"], compile=False)
    assert calls == [1]
