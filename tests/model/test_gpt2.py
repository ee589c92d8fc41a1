import contextlib
import math

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig
from myna.errors import ModelError
from myna.model.evaluation import evaluation_mode
from myna.model.loss import token_nats

SMALL = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=100)


def test_logits_have_the_true_vocabulary_and_the_padding_is_unreachable():
    model = GPT(SMALL)
    assert model.wte.weight.shape == (128, 16)
    logits = model(torch.zeros(2, 5, dtype=torch.int64))
    assert logits.shape == (2, 5, 100)
    logits.sum().backward()
    assert model.wte.weight.grad is not None
    assert not model.wte.weight.grad[100:].any()


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=4, n_head=4, n_embd=256, block_size=128, vocab_size=1000))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "ln_" in name:
            assert (parameter == 1).all()
        else:
            rows = parameter[:1000] if name == "wte.weight" else parameter
            expected = 0.02 / math.sqrt(8) if name.endswith("c_proj.weight") else 0.02
            assert rows.std().item() == pytest.approx(expected, rel=0.03), name
    assert not model.wte.weight[1000:].any()


def test_initial_loss_of_gpt2_124m_is_that_of_its_initial_weights():
    """Logits start as N(0, C * 0.02^2), so the expected loss is ln V + C * 0.02^2 / 2 = 10.825 + 0.154."""
    torch.manual_seed(0)
    model = GPT(GPTConfig()).eval()
    ids = torch.randint(0, 50257, (4, 129))
    with torch.no_grad():
        loss = token_nats(model(ids[:, :-1]), ids[:, 1:]).mean().item()
    assert loss == pytest.approx(math.log(50257) + 768 * 0.02**2 / 2, abs=0.06)


def test_later_tokens_do_not_reach_earlier_logits():
    model = GPT(SMALL).eval()
    a = torch.randint(0, 100, (1, 20))
    b = a.clone()
    b[0, 12:] = torch.randint(0, 100, (8,))
    torch.testing.assert_close(model(a)[:, :12], model(b)[:, :12])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_layer": 0}, "n_layer"),
        ({"n_embd": 15}, "n_embd"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_an_impossible_shape_is_refused_by_name(change, named):
    with pytest.raises(ModelError, match=named):
        GPTConfig(**({"n_head": 2, "n_embd": 16} | change))


@pytest.mark.parametrize(
    "shape",
    [
        {"n_layer": "3"}, {"n_layer": 3.0}, {"n_layer": True}, {"n_layer": None}, {"n_embd": [16]},
        {"vocab_size": float("inf")}, {"block_size": 1 << 40}, {"dropout": "0.1"}, {"dropout": None},
    ],
)  # fmt: skip
def test_a_shape_of_another_type_is_refused_in_our_words(shape):
    with pytest.raises(ModelError, match=f"model shape: {next(iter(shape))} is .*; give"):
        GPTConfig(**shape)


def test_numpy_numbers_are_numbers():
    config = GPTConfig(vocab_size=np.int64(100), n_layer=np.uint8(2))
    assert (type(config.vocab_size), type(config.n_layer)) == (int, int)


@pytest.mark.parametrize("config", [None, {"n_layer": 1}, "gpt2", 12])
def test_what_is_no_config_is_refused_in_our_words(config):
    with pytest.raises(ModelError, match=r"GPT was given .*; give a NetworkConfig"):
        GPT(config)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (
            torch.tensor([[1, 100]]),
            "id 100 is outside the vocabulary",
        ),  # a row of zeros that pads the embedding
        (torch.tensor([[127]]), "id 127 is outside"),
        (torch.tensor([[128]]), "id 128 is outside"),  # torch's own error before
        (torch.tensor([[-1, 3]]), "id -1 is outside"),
        (torch.zeros(1, 3), r"ids are torch\.float32; give a tensor of int64"),
        (torch.ones(1, 3, dtype=torch.bool), r"ids are torch\.bool"),
        ([[1, 2]], "ids are list; give a tensor"),
        ("abc", "ids are str; give a tensor"),
        (torch.zeros(2, 0, dtype=torch.int64), "both at least 1"),  # torch's own error before
        (torch.tensor([1, 2]), "ids.None. makes one sequence a batch"),
    ],
)
def test_ids_that_cannot_be_are_refused_with_and_without_a_cache(ids, says):
    model = GPT(SMALL)
    for call in (model, model.hidden, lambda ids: model.hidden(ids, model.new_cache(1))):
        with pytest.raises(ModelError, match=says):
            call(ids)


def test_ids_of_int32_go_through():
    model = GPT(SMALL).eval()
    torch.testing.assert_close(
        model(torch.tensor([[1, 99]])), model(torch.tensor([[1, 99]], dtype=torch.int32))
    )


def test_compiled_code_and_other_devices_do_not_read_the_ids(monkeypatch):
    """Reading them would break the graph, or wait for the device."""
    import myna.model.decoder

    def read(*_):
        raise AssertionError("the ids were read")

    monkeypatch.setattr(myna.model.decoder, "check_ids", read)
    ids = torch.zeros(1, 3, dtype=torch.int64)
    with torch.device("meta"):
        GPT(SMALL)(ids.to("meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    GPT(SMALL)(ids)
    monkeypatch.undo()


def test_more_positions_than_the_model_has_are_refused():
    with pytest.raises(ModelError, match="33 positions"):
        GPT(SMALL)(torch.zeros(1, 33, dtype=torch.int64))


def test_one_batch_of_4x32_ids_is_overfitted():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=32, vocab_size=1000))
    ids = torch.randint(0, 1000, (4, 33))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for _ in range(120):
        optimizer.zero_grad()
        loss = token_nats(model(ids[:, :-1]), ids[:, 1:]).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_the_sizes_of_gpt2():
    """Counted without the 47 rows that pad the vocabulary."""
    with torch.device("meta"):
        model = GPT(GPTConfig())
    assert model.n_parameters() == 124_439_808
    # 6 operations a weight but the positions', and 12 L C T for attention.
    assert model.flops_per_token(1024) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


def test_evaluation_mode_ends_as_it_began():
    model = GPT(SMALL)
    for training in (True, False):
        model.train(training)
        with contextlib.suppress(KeyError), evaluation_mode(model):
            assert not model.h[0].attn.training
            raise KeyError
        assert all(part.training == training for part in model.modules())


def test_recomputed_activations_give_the_same_gradients():
    model, ids = GPT(SMALL), torch.randint(0, 100, (2, 9))
    gradients = []
    for model.recompute in (False, True):
        model.zero_grad()
        model.nats(model.hidden(ids), ids).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_each_targets_loss_adds_up_to_the_whole():
    model, ids = GPT(SMALL), torch.randint(0, 100, (2, 9))
    hidden = model.hidden(ids)
    each = model.token_nats(hidden, ids)
    assert each.shape == (2, 9)
    torch.testing.assert_close(each, token_nats(model.logits(hidden), ids).detach())
    torch.testing.assert_close(model.nats(hidden, ids).detach(), each.sum())
