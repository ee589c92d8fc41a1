"""Weights stored in bf16 and int8: what is computed with them, and what it costs."""

import copy

import pytest
import torch

from myna.errors import DeviceError
from myna.generate.engine import generate
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.quantize import Bf16Matrix, Int8Matrix, resolve_weights, store_weights


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


def test_int8_is_the_plain_formula():
    torch.manual_seed(0)
    weight, x, bias = torch.randn(7, 12), torch.randn(2, 3, 12) * 5, torch.randn(7)
    weight[3], x[1, 1] = 0, 0  # rows of zeros have no scale
    found = Int8Matrix(weight).product(x, bias)
    for b in range(2):
        for t in range(3):
            a = max(x[b, t].abs().max().item() / 127, 1e-30)
            inputs = [round(v / a) for v in x[b, t].tolist()]
            for n in range(7):
                s = max(weight[n].abs().max().item() / 127, 1e-30)
                whole = sum(round(w / s) * q for w, q in zip(weight[n].tolist(), inputs, strict=True))
                assert found[b, t, n].item() == pytest.approx(
                    whole * a * s + bias[n].item(), rel=1e-4, abs=1e-4
                )


def test_an_int8_product_does_not_depend_on_its_company():
    torch.manual_seed(0)
    matrix, x = Int8Matrix(torch.randn(50, 64)), torch.randn(40, 64)
    together = matrix.product(x)
    for n in (1, 2, 7, 40):
        assert torch.equal(matrix.product(x[:n]), together[:n])


@pytest.mark.parametrize("kind", [Bf16Matrix, Int8Matrix])
def test_rows_are_those_of_the_products(kind):
    weight = torch.randn(9, 16)
    matrix = kind(weight)
    rows = matrix.rows(torch.tensor([[3, 8]]))
    assert rows.shape == (1, 2, 16)
    assert rows.dtype == torch.float32
    assert torch.allclose(rows[0], weight[[3, 8]], atol=weight.abs().max().item() / 127)
    exact = kind(rows[0])  # rounded once, it stays as it is
    assert torch.allclose(exact.rows(torch.tensor([0, 1])), rows[0], rtol=1e-6)


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


@pytest.mark.parametrize(("weights", "nats"), [("bf16", 0.01), ("int8", 0.02)])
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
    assert torch.allclose(found.flatten(), from_logits, atol=2e-2 if weights == "bf16" else 1e-5)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
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
