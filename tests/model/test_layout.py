"""A network without an exporter is kept as it is; one with an exporter computes what its files promise."""

import json
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import ModelError
from myna.model.config import NetworkConfig
from myna.model.decoder import Decoder, check_network
from myna.model.gpt2 import MLP, Block
from myna.model.network import NETWORKS, NetworkKind
from myna.model.open import open_model
from myna.settings import Options

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "vocab_size": 257}


@dataclass(frozen=True)
class MeanOptions(Options):
    scale: float = 1.0


class Mean(Decoder):
    """The embeddings themselves, scaled."""

    def __init__(self, config):
        super().__init__(config)
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.h = nn.ModuleList()

    @property
    def blocks(self):
        return self.h

    @property
    def head_weight(self):
        return self.wte.weight

    def hidden(self, ids, cache=None, *, through=None):
        self.positions(ids, cache)
        return self.run_blocks(self.wte(ids) * self.config.options.scale, cache, through)


@pytest.fixture
def mean(monkeypatch):
    monkeypatch.setitem(NETWORKS, "mean", NetworkKind(Mean, options=MeanOptions))
    return Mean(NetworkConfig(**SHAPE, options=MeanOptions(scale=0.5)))


def test_a_network_of_its_own_comes_back_with_its_options(mean, tmp_path):
    check_network(mean)
    mean.save_pretrained(tmp_path, Tokenizer.bytes())
    opened = open_model(tmp_path)
    assert opened.model.config == mean.config
    assert torch.equal(opened.model.wte.weight[:257], mean.wte.weight[:257])
    assert opened.tokenizer.n_vocab == 257
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "myna-mean"
    with pytest.raises(ModelError, match="holds a Mean"):
        GPT.from_pretrained(tmp_path)


def test_options_that_the_network_does_not_have_are_refused(mean, tmp_path):
    mean.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"options": {"scaling": 1.0}}))
    with pytest.raises(ModelError, match="scaling"):
        open_model(tmp_path)


def test_a_network_that_is_in_no_table_is_not_saved(mean, tmp_path, monkeypatch):
    mean.save_pretrained(tmp_path)
    monkeypatch.delitem(NETWORKS, "mean")
    with pytest.raises(ModelError, match="not in the table"):
        mean.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no network 'mean'"):
        open_model(tmp_path)


class ReluMLP(MLP):
    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)))


class ReluBlock(Block):
    def __init__(self, config):
        super().__init__(config)
        self.mlp = ReluMLP(config)


class ReluGPT(GPT):
    def __init__(self, config):
        super().__init__(config)
        for layer in range(config.n_layer):
            self.h[layer] = ReluBlock(config)


def relu_in_an_instance(model, monkeypatch):
    model.h[1].mlp = ReluMLP(model.config)


def another_function_in_an_instance(model, monkeypatch):
    model.h[0].mlp.forward = F.relu


def another_constant_outside_the_blocks(model, monkeypatch):
    model.ln_f.eps = 1e-3


def another_gelu(model, monkeypatch):
    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate="none": gelu(x))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (ReluGPT, lambda *_: None),
        (GPT, relu_in_an_instance),
        (GPT, another_function_in_an_instance),
        (GPT, another_constant_outside_the_blocks),
        (GPT, another_gelu),
    ],
)
def test_what_is_no_gpt2_any_more_is_not_saved_as_gpt2(kind, change, tmp_path, monkeypatch):
    model = kind(GPTConfig(**SHAPE))
    change(model, monkeypatch)
    with pytest.raises(ModelError, match="does not compute GPT-2 any more"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_check_leaves_the_network_and_the_generator_alone(tmp_path):
    model, state = GPT(GPTConfig(**SHAPE, dropout=0.5)), torch.get_rng_state()
    model.layout.check(model.eval())
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training
