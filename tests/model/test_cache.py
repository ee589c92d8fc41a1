import pytest
import torch

from myna import GPT, GPTConfig
from myna.errors import ModelError
from myna.model.cache import KVCache

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=32, block_size=24, vocab_size=64)


@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 1, 10, 7], [23, 1]])
def test_logits_in_pieces_equal_logits_at_once(pieces):
    torch.manual_seed(0)
    model = GPT(CONFIG).eval()
    ids = torch.randint(0, 64, (2, 24))
    cache = KVCache(CONFIG, 2, "cpu")
    with torch.no_grad():
        parts = [model(part, cache) for part in ids.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-5, rtol=1e-5)
    assert cache.length == 24


def test_a_reset_cache_forgets():
    model = GPT(CONFIG).eval()
    cache = KVCache(CONFIG, 1, "cpu")
    ids = torch.randint(0, 64, (1, 4))
    with torch.no_grad():
        model(torch.randint(0, 64, (1, 10)), cache)
        cache.reset()
        torch.testing.assert_close(model(ids, cache), model(ids), atol=1e-5, rtol=1e-5)


def test_a_full_cache_is_refused():
    model = GPT(CONFIG).eval()
    cache = KVCache(CONFIG, 1, "cpu")
    with torch.no_grad():
        model(torch.zeros(1, 24, dtype=torch.int64), cache)
        with pytest.raises(ModelError, match="25 positions"):
            model(torch.zeros(1, 1, dtype=torch.int64), cache)
