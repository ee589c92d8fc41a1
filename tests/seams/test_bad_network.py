"""A network that breaks its promises is refused at the start, in one line."""

import pytest
import torch
from torch import nn

from myna.cli import main
from myna.errors import ModelError
from myna.model.config import GPTConfig
from myna.model.decoder import check_network
from myna.model.gpt2 import GPT
from myna.model.layout import OwnLayout
from myna.model.network import NETWORKS, NetworkKind


class Longer(GPT):
    """One position too many comes out."""

    layout = OwnLayout()

    def hidden(self, ids, cache=None, *, through=None):
        return nn.functional.pad(super().hidden(ids, cache, through=through), (0, 0, 0, 1))


def test_another_shape_is_named_before_step_1(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "longer", NetworkKind(Longer))
    args = ["train", *small_run, "--network", "longer", "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "Longer.hidden gives shape" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--network", "--optimizer"])
def test_an_unknown_name_lists_the_known(flag, small_run, tmp_path, capsys):
    args = ["train", *small_run, flag, "nonesuch", "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert f"there is no {flag[2:]} 'nonesuch'" in error
    assert "gpt2" in error or "adamw" in error
    assert not (tmp_path / "run").exists()


class Buffered(GPT):
    """Keeps what would not be saved."""

    layout = OwnLayout()

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("angles", torch.zeros(3))


class Unused(GPT):
    """A parameter that no gradient reaches."""

    layout = OwnLayout()

    def __init__(self, config):
        super().__init__(config)
        self.extra = nn.Parameter(torch.zeros(3))


class Forgetful(GPT):
    """Forgets what the cache holds."""

    layout = OwnLayout()

    def hidden(self, ids, cache=None, *, through=None):
        if cache is not None:
            cache.cut(0)
        return super().hidden(ids, cache, through=through)


class Foreseeing(GPT):
    """Sees the next position."""

    layout = OwnLayout()

    def hidden(self, ids, cache=None, *, through=None):
        hidden = super().hidden(ids, cache, through=through)
        return hidden + hidden.roll(-1, dims=1)


class Misnamed(GPT):
    """Names a parameter that is not there."""

    layout = OwnLayout()
    looked_up = ("positions.weight",)


class MisnamedPositions(GPT):
    """Names position embeddings that are not there."""

    layout = OwnLayout()
    position_embedding = "positions.weight"


class NoPositions(GPT):
    """Names something else as its position embeddings."""

    layout = OwnLayout()
    position_embedding = "wte.weight"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Buffered, "keeps the buffer angles"),
        (Unused, "does not use its parameter extra"),
        (Forgetful, "gives other numbers with a cache"),
        (Foreseeing, "gives other numbers with a cache|see the positions after it"),
        (Misnamed, "has no parameter 'positions.weight'"),
        (MisnamedPositions, "has no parameter 'positions.weight'"),
        (NoPositions, r"give it shape \(8, 16\), or leave position_embedding out"),
    ],
)
def test_what_would_show_at_the_resume_is_said_at_the_start(kind, says):
    torch.manual_seed(0)
    network = kind(GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=8, vocab_size=50))
    with pytest.raises(ModelError, match=says):
        check_network(network)
    check_network(GPT(network.config))  # and what is right passes
