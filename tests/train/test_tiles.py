import pytest
import torch

from myna.device import Precision
from myna.recipes import RECIPES, named
from myna.train.tiles import tile_note

GPU, CPU = torch.device("cuda"), torch.device("cpu")
BF16, FP32 = Precision("bf16", ""), Precision("fp32", "")


def note(recipe, device=GPU, precision=BF16):
    return tile_note(named(recipe).network_config(50257), device, precision)


def test_25_heads_are_told_with_the_shapes_beside_them():
    assert note("gpt2-1558m") == (
        "a width of 1600 (25 heads of 64) is no multiple of 128, so about 4% of its matrix products are thrown away; "
        "for a shape of your own give --n-embd 1536 --n-head 24 or --n-embd 1664 --n-head 26; keep it to reproduce a "
        "published model"
    )


def test_heads_of_96_are_told():
    said = note("gpt3-760m")
    assert "heads are 96 wide, which is no multiple of 64" in said
    assert "give --n-embd 1536 --n-head 12 or --n-embd 1536 --n-head 24;" in said


def test_nothing_is_said_on_a_cpu_in_fp32_and_of_small_networks():
    assert note("gpt2-1558m", device=CPU) is None
    assert note("gpt2-1558m", precision=FP32) is None
    assert note("shakespeare-char") is None


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"gpt2-1558m", "gpt3-760m"}))
def test_no_other_recipe_is_told(recipe):
    assert note(recipe) is None
