"""Tensors are counted as the network counts them, and smoothness is what it is said to be."""

from pathlib import Path

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig
from myna.errors import ModelError
from myna.evaluate.inspect.weights import (
    MOST_CHECKPOINTS,
    check_finite,
    evenly,
    layer_tensors,
    roughness,
    smoothness,
    smoothness_of_run,
    tensor_table,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=3, n_head=2, n_embd=8, block_size=64, vocab_size=50))


def test_the_table_has_every_parameter_once(network):
    rows = tensor_table(network)
    assert sum(row.parameters for row in rows) == network.n_parameters()
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(row.count for row in rows) == len(list(network.parameters()))
    by_name = {row.name: row for row in rows}
    assert (by_name["wte.weight"].shape, by_name["wte.weight"].is_tied) == ((50, 8), True)
    c_fc = by_name["h.N.mlp.c_fc.weight"]
    assert (c_fc.count, c_fc.shape, c_fc.parameters, c_fc.is_head) == (3, (32, 8), 3 * 32 * 8, False)


def test_a_layers_tensors_are_its_own(network):
    tensors = layer_tensors(network, 2)
    assert tensors["attn.c_attn.weight"].shape == (24, 8)
    assert torch.equal(tensors["mlp.c_fc.weight"], network.h[2].mlp.c_fc.weight)
    for layer in (-1, 3):
        with pytest.raises(ModelError, match=f"no layer {layer}; the model has 3: give 0 to 2"):
            layer_tensors(network, layer)


def test_roughness_is_1_for_noise_and_near_0_for_a_wave():
    draw, at = np.random.default_rng(0), np.arange(1000)
    noise = draw.normal(size=(1000, 50))
    assert roughness(noise).mean() == pytest.approx(1, abs=0.02)
    wave = np.sin(2 * np.pi * at / 200)[:, None]
    assert roughness(wave)[0] == pytest.approx(1 - np.cos(2 * np.pi / 200), rel=0.01)
    assert roughness(np.hstack([noise[:, :1], np.ones((1000, 1))])).shape == (1,)  # a constant has none


def test_smoothness_is_of_the_positions_that_were_trained(network):
    wave = torch.sin(torch.arange(64) / 10)[:, None].expand(64, 8).clone()
    wave[32:] = torch.randn(32, 8)
    network.wpe.weight.data.copy_(wave)
    assert smoothness(network, 7, 32).median < 0.05 < 0.2 < smoothness(network, 7, None).median
    assert smoothness(network, 7, 32).positions.shape == (32, 8)
    network.wpe.weight.data.zero_()
    assert smoothness(network, 7, None) is None
    assert smoothness(network, 7, 1) is None


def test_checkpoints_that_are_damaged_are_named(save_tiny, tmp_path):
    for step in (1, 2, 3):
        save_tiny(tmp_path / f"step_{step:08d}", seed=step)
    (tmp_path / "step_00000002" / "model.safetensors").write_bytes(b"x")
    skipped = []
    found = list(smoothness_of_run(sorted(tmp_path.iterdir()), None, skipped))
    assert [one.step for one in found] == [1, 3]
    (line,) = skipped
    assert "step_00000002" in line
    assert "is damaged" in line


def test_many_checkpoints_are_thinned_with_both_ends():
    paths = [Path(str(n)) for n in range(1000)]
    chosen = evenly(paths)
    assert len(chosen) == MOST_CHECKPOINTS
    assert (chosen[0], chosen[-1]) == (paths[0], paths[-1])
    assert evenly(paths[:5]) == paths[:5]


def test_a_nan_is_named(network):
    check_finite(network)
    network.h[1].mlp.c_fc.bias.data[3] = torch.nan
    with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_fc\.bias holds a NaN"):
        check_finite(network)
