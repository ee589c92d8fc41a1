"""A network that breaks its promises is refused at the start, in one line."""

import pytest
from torch import nn

from myna.cli import main
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
