"""A cache may do what it likes with its storage, as long as each row's logits are those of its own text."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from myna import GPT, GPTConfig
from myna.errors import ModelError
from myna.model.cache import KVCache
from myna.model.packed import Packed

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=32, block_size=24, vocab_size=64)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> GPT:
    """Fresh memory is full of NaN, which no row may meet: attention would give it weight 0, and 0 * NaN is NaN."""
    torch.manual_seed(0)
    network = GPT(CONFIG).eval().requires_grad_(False)
    monkeypatch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))
    return network


def ids_of(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_goes_on(model, cache, texts: list[list[int]], T: int = 2) -> None:
    """Each row of the cache holds its text: T new ids of each get the logits that they get behind the text itself."""
    new = ids_of(len(texts), T, seed=9)
    assert cache.lengths == [len(text) for text in texts]
    found = model(new, cache)
    for row, text in enumerate(texts):
        alone = model(torch.tensor([[*text, *new[row].tolist()]]))[0, -T:]
        torch.testing.assert_close(found[row], alone, atol=1e-5, rtol=1e-5)


def filled(model, lengths, positions=None):
    """A cache of rows of those lengths, and their texts."""
    ids = ids_of(len(lengths), max(lengths))
    cache = model.new_cache(len(lengths), positions)
    model.hidden(ids, cache)
    cache.cut(lengths)
    return cache, [row[:n] for row, n in zip(ids.tolist(), lengths, strict=True)]


@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 1, 10, 7], [23, 1]])
def test_logits_in_pieces_equal_logits_at_once(model, pieces):
    ids, cache = ids_of(2, 24), model.new_cache(2)
    parts = [model(part, cache) for part in ids.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-5, rtol=1e-5)
    assert cache.lengths == [24, 24]


def test_a_cut_cache_forgets(model):
    cache, texts = filled(model, [10])
    cache.cut(4)
    assert_goes_on(model, cache, [texts[0][:4]])
    cache.cut(0)
    assert_goes_on(model, cache, [[]])


@pytest.mark.parametrize("lengths", [[3, 7, 1], [5, 5], [0, 4]])
def test_rows_of_different_lengths_go_on_each_from_its_own_end(model, lengths):
    cache, texts = filled(model, lengths)
    assert_goes_on(model, cache, texts, T=1)
    cache.cut(lengths)
    assert_goes_on(model, cache, texts, T=3)
    cache.cut([max(0, n - 1) for n in lengths])
    assert_goes_on(model, cache, [text[:-1] for text in texts])


def test_rows_repeated_and_selected(model):
    cache, (a, b) = filled(model, [6, 2])
    assert_goes_on(model, cache.repeat(3, positions=9), [a, a, a, b, b, b])
    assert_goes_on(model, cache.select([1, 0, 1]), [b, a, b])
    assert cache.select([1], positions=5).capacity == 5
    assert_goes_on(model, cache, [a, b])  # which is as it was


def test_nothing_is_repeated_too(model):
    nothing = model.new_cache(1, positions=0)
    assert nothing.capacity == nothing.select([0], positions=0).capacity == 0
    assert_goes_on(model, nothing.repeat(2, positions=4), [[], []])


@pytest.mark.parametrize("rows", [[1], [2, 0], [1, 0, 2], [0, 1, 2]])
@pytest.mark.parametrize("lengths", [[3, 8, 1], [2, 2, 2], [0, 5, 5]])
def test_rows_are_put_in_the_place_of_others(model, rows, lengths):
    cache, texts = filled(model, [4, 2, 6])
    source, new = filled(model, [n + 1 for n in lengths], positions=12)
    cache.put(rows, source, source_rows=rows[::-1])
    for row, source_row in zip(rows, rows[::-1], strict=True):
        texts[row] = new[source_row]
    assert_goes_on(model, cache, texts)


def test_a_full_cache_is_refused(model):
    cache, _ = filled(model, [24, 3])
    with pytest.raises(ModelError, match="25 positions"):
        model(ids_of(2, 1), cache)


@pytest.mark.parametrize(
    "make",
    [lambda: KVCache((2, 1, 1, 4, 2), "cpu"), lambda: Packed.side_by_side(torch.arange(3)[None])],
)
def test_a_cache_that_nobody_holds_is_gone_at_once(make: Callable[[], KVCache]):
    # Python's collector counts objects, not bytes: a server grew by hundreds of megabytes until it came by.
    cache = make()
    cache.layer(0)
    is_gone = weakref.finalize(cache, lambda: None)
    gc.disable()
    try:
        del cache
        assert not is_gone.alive
    finally:
        gc.enable()
