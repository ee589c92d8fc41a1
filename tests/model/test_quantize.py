"""Weights stored in bf16 and int8: what is computed with them, and what it costs."""

import copy

import pytest
import torch

from myna.errors import DeviceError, ModelError
from myna.generate.engine import generate
from myna.model import matrix
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.matrix import Bf16Matrix, Fp16Matrix, Int8Matrix
from myna.model.quantize import largest_weight, resolve_weights, store_weights


def small_model() -> GPT:
    torch.manual_seed(3)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=61)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def stored(model: GPT, weights: str) -> GPT:
    model = copy.deepcopy(model)
    store_weights(model, weights)
    return model


IDS = torch.randint(0, 61, (3, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["fbgemm", "int_mm"])
def int8(request, monkeypatch) -> int:
    """Each kernel in turn; gives the largest weight that it takes."""
    most = matrix.largest_int8_weight()
    if request.param == "int_mm":
        monkeypatch.setattr(matrix, "largest_int8_weight", lambda: None)
        return 127
    if most is None:
        pytest.skip("this processor has no fbgemm")
    return most


def test_int8_is_the_plain_formula(int8):
    torch.manual_seed(0)
    weight, x, bias = torch.randn(7, 12), torch.randn(2, 3, 12) * 5, torch.randn(7)
    weight[3], x[1, 1] = 0, 0  # rows of zeros have no scale
    found = Int8Matrix(weight).product(x, bias)
    assert found.shape == (2, 3, 7)
    for b in range(2):
        for t in range(3):
            a = max(x[b, t].abs().max().item() / 127, 1e-30)
            inputs = [round(v / a) for v in x[b, t].tolist()]
            for n in range(7):
                s = max(weight[n].abs().max().item() / int8, 1e-30)
                whole = sum(round(w / s) * q for w, q in zip(weight[n].tolist(), inputs, strict=True))
                assert found[b, t, n].item() == pytest.approx(
                    whole * a * s + bias[n].item(), rel=1e-4, abs=1e-4
                )


def test_an_int8_product_does_not_depend_on_its_company(int8):
    torch.manual_seed(0)
    one, x = Int8Matrix(torch.randn(50, 64)), torch.randn(40, 64)
    together = one.product(x)
    for n in (1, 2, 7, 40):
        assert torch.equal(one.product(x[:n]), together[:n])


def test_the_largest_sums_of_int8_are_not_cut_off(int8):
    """Without instructions for it, a processor adds pairs in 16 bits: 2 * 255 * 127 is over 32,767."""
    signs = torch.tensor([1.0, -1.0]).repeat(32)
    found = Int8Matrix(torch.stack([torch.ones(64), signs])).product(torch.stack([torch.ones(64), -signs]))
    assert torch.allclose(found, torch.tensor([[64.0, 0.0], [0.0, -64.0]]))


def test_fp16_multiplies_the_rounded_weights_in_fp32(monkeypatch):
    torch.manual_seed(0)
    weight, x, bias = torch.randn(50, 64), torch.randn(5, 3, 64) * 100, torch.randn(50)
    wanted = torch.nn.functional.linear(x, weight.half().float(), bias)
    if matrix.has_fp16_kernel():
        assert torch.allclose(Fp16Matrix(weight).product(x, bias), wanted, rtol=1e-5, atol=1e-3)
    monkeypatch.setattr(matrix, "has_fp16_kernel", lambda: False)
    assert torch.allclose(Fp16Matrix(weight).product(x, bias), wanted, rtol=1e-2, atol=1.0)


def test_weights_that_fp16_cannot_hold_are_refused():
    model = small_model()
    with torch.no_grad():
        model.h[0].mlp.c_fc.weight[0, 0] = 7e4
    with pytest.raises(ModelError, match="a weight is 7e\\+04, and fp16 ends at 65504"):
        stored(model, "fp16")
    stored(model, "bf16")


@pytest.mark.parametrize("kind", [Bf16Matrix, Fp16Matrix, Int8Matrix])
def test_rows_are_those_of_the_products(kind):
    weight = torch.randn(9, 16)
    one = kind(weight, looked_up=True)
    rows = one.rows(torch.tensor([[3, 8]]))
    assert rows.shape == (1, 2, 16)
    assert rows.dtype == torch.float32
    assert torch.allclose(rows[0], weight[[3, 8]], atol=weight.abs().max().item() / 63)
    exact = kind(rows[0], looked_up=True)  # rounded once, it stays as it is
    assert torch.allclose(exact.rows(torch.tensor([0, 1])), rows[0], rtol=1e-6)
    one_hot = torch.eye(16)[None, 5]
    assert torch.allclose(
        one.product(one_hot)[0].float(), one.rows(torch.arange(9))[:, 5], rtol=1e-2, atol=1e-6
    )


def test_bf16_computes_what_autocast_does():
    """But for the embeddings, which are rounded too: so they are rounded beforehand on both sides."""
    model = small_model()
    with torch.no_grad():
        model.wte.weight.copy_(model.wte.weight.bfloat16())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model(IDS)
    with torch.no_grad():
        found = stored(model, "bf16")(IDS)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(("weights", "nats"), [("bf16", 0.01), ("fp16", 0.001), ("int8", 0.03)])
def test_the_loss_changes_little(weights, nats):
    model = small_model()
    low = stored(model, weights)
    with torch.no_grad():
        wanted, found = (m.token_nats(m.hidden(IDS), IDS) for m in (model, low))
        from_logits = torch.nn.functional.cross_entropy(
            low(IDS).float().flatten(0, 1), IDS.flatten(), reduction="none"
        )
    assert float((found - wanted).abs().mean()) < nats
    assert not torch.equal(found, wanted)
    assert torch.allclose(found.flatten(), from_logits, atol=2e-2 if weights == "bf16" else 1e-3)


@pytest.mark.parametrize("weights", ["bf16", "fp16", "int8"])
def test_a_tied_matrix_is_stored_once_and_nothing_large_is_left_in_fp32(weights):
    model = stored(small_model(), weights)
    assert model.head_weight is model.wte.weight
    assert all(parameter.dim() == 1 or name == "wpe.weight" for name, parameter in model.named_parameters())
    assert model.device == torch.device("cpu")
    assert [len(row) for row in generate(model, IDS.tolist(), max_tokens=20, seed=0)] == [20] * 3


def test_fp32_leaves_the_network_alone():
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    store_weights(model, "fp32")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(IDS).sum().backward()


def test_a_device_without_the_kernel_is_refused():
    with pytest.raises(DeviceError, match="int8 has no kernel on mps"):
        resolve_weights("int8", torch.device("mps"))
    assert resolve_weights("int8", torch.device("cpu"))[0] == "int8"


@pytest.mark.parametrize(
    ("instructions", "largest", "weights"),
    [
        ({"avx2"}, 65504.0, "fp16"),
        ({"avx2"}, 1e5, "fp32"),
        ({"avx512_bf16"}, 1e5, "bf16"),
        ({"avx512_bf16"}, 3.4e38, "fp32"),
    ],
)
def test_auto_takes_a_kind_that_holds_the_largest_weight(monkeypatch, instructions, largest, weights):
    monkeypatch.setattr("myna.model.quantize.cpu_flags", lambda: frozenset(instructions))
    monkeypatch.setattr("myna.model.quantize.has_fp16_kernel", lambda: True)
    found, why = resolve_weights("auto", torch.device("cpu"), largest=largest)
    assert found == weights
    assert ("too large" in why) == (weights == "fp32")


def test_the_largest_weight_is_of_what_is_stored():
    model = small_model()
    with torch.no_grad():
        model.wpe.weight[0, 0] = 1e6  # stays fp32
        model.blocks[1].mlp.c_fc.weight[0, 0] = -1e5
    assert largest_weight(model) == 1e5


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("weights", ["bf16", "fp16", "int8"])
def test_a_weight_that_is_not_finite_is_named(weights, value):
    model = small_model()
    with torch.no_grad():
        model.blocks[1].mlp.c_fc.weight[0, 0] = value
    with pytest.raises(
        ModelError, match=r"weights are not finite: \S*1\.mlp\.c_fc\.weight holds a NaN .* checkpoint"
    ):
        store_weights(model, weights)
