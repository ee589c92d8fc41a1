"""Texts side by side in a row give each the numbers that it has alone."""

import pytest
import torch

from myna.errors import ModelError
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.packed import Packed

BLOCK = 8


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, vocab_size=50)).eval()


def side_by_side(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (1, T) and what each may see (1, T, T), of texts one after the other."""
    positions = torch.cat([torch.arange(n) for n in lengths])
    visible = torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)).bool()
    return positions[None], visible[None]


@torch.no_grad()
def test_texts_side_by_side_do_not_see_each_other(model):
    texts = [torch.randint(0, 50, (n,)) for n in (3, 8, 1, 5)]
    layout = Packed(*side_by_side(3, 8, 1, 5))
    together = model.hidden(torch.cat(texts)[None], layout)[0]  # 17 ids, over the model's 8 positions
    alone = torch.cat([model.hidden(text[None])[0] for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(model.hidden(torch.cat(texts)[None, :8])[0, 3:], alone[3:8], atol=1e-5)


@torch.no_grad()
def test_the_layout_can_be_used_again(model):
    ids = torch.randint(0, 50, (1, 6))
    layout = Packed(*side_by_side(4, 2))
    assert torch.equal(model.hidden(ids, layout), model.hidden(ids, layout))


def test_a_position_over_the_models_last_is_refused(model):
    layout = Packed(*side_by_side(BLOCK + 1, 2))
    with pytest.raises(ModelError, match="9 positions are needed, and the model has 8"):
        model.hidden(torch.zeros(1, BLOCK + 3, dtype=torch.int64), layout)
