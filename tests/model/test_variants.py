"""GPT-2 with other choices: the defaults are GPT-2 itself, and every choice keeps what a network must keep."""

import math

import pytest
import torch

from myna import GPT, GPTConfig
from myna.model.config import VariantsConfig, VariantsOptions
from myna.model.decoder import check_network
from myna.model.variants import Variants, sines_and_cosines
from myna.model.weights import load_network

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "vocab_size": 300}
IDS = torch.arange(20).view(2, 10) * 13 % 300


def variant(**options) -> Variants:
    torch.manual_seed(0)
    return Variants(VariantsConfig(**SHAPE, options=VariantsOptions(**options)))


def test_the_defaults_are_gpt2_bit_for_bit():
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(**SHAPE))
    ours = variant()
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in gpt.named_parameters()}
    assert torch.equal(ours(IDS), gpt(IDS))
    assert ours.flops_per_token(8) == gpt.flops_per_token(8)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(
    ("positions", "activation"), [("learned", "gelu"), ("sinusoidal", "relu"), ("none", "tanh-gelu")]
)
@pytest.mark.parametrize("tied", [True, False])
def test_every_choice_keeps_what_a_network_must_keep(norm, activation, positions, tied, tmp_path):
    network = variant(norm=norm, activation=activation, positions=positions, tied_head=tied).eval()
    check_network(network)
    network.save_pretrained(tmp_path)
    again = load_network(tmp_path).eval()
    assert again.config == network.config
    assert torch.equal(again(IDS), network(IDS))


def test_post_norm_ends_on_a_norm_and_has_none_after_it():
    network = variant(norm="post").eval()
    with torch.no_grad():
        hidden = network.hidden(IDS)
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(2, 10), atol=1e-5, rtol=0)
    assert not hasattr(network, "ln_f")


def test_without_residual_scaling_the_projections_begin_as_large_as_the_rest():
    wide = {**SHAPE, "n_embd": 64, "n_layer": 8}
    for scaling, std in ((True, 0.02 / math.sqrt(16)), (False, 0.02)):
        torch.manual_seed(0)
        network = Variants(VariantsConfig(**wide, options=VariantsOptions(residual_scaling=scaling)))
        assert network.h[0].mlp.c_proj.weight.std().item() == pytest.approx(std, rel=0.02)
        assert network.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_one_layer_without_positions_sees_a_set_and_two_see_an_order():
    def last(n_layer, ids, positions="none"):
        torch.manual_seed(0)
        config = VariantsConfig(**{**SHAPE, "n_layer": n_layer}, options=VariantsOptions(positions=positions))
        network = Variants(config).double().eval()
        with torch.no_grad():
            return network.hidden(torch.tensor([ids]))[0, -1]

    torch.testing.assert_close(last(1, [5, 6, 7]), last(1, [6, 5, 7]))
    for n_layer, positions in ((2, "none"), (1, "sinusoidal"), (1, "learned")):
        there, back = last(n_layer, [5, 6, 7], positions), last(n_layer, [6, 5, 7], positions)
        assert (there - back).abs().max() > 1e-6


def test_the_head_is_its_own_where_it_is_untied():
    network = variant(tied_head=False)
    assert network.head_weight is network.lm_head.weight
    assert network.n_parameters() == variant().n_parameters() + 300 * 16
    assert network.flops_per_token(8) == variant().flops_per_token(8)


def test_sines_and_cosines_are_as_large_as_learned_vectors_begin():
    vectors = sines_and_cosines(torch.arange(1000), 64)
    assert vectors.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.01)
    assert len(vectors.unique(dim=0)) == 1000
