"""Perplexity in strided windows against the definition, token by token."""

import math

import numpy as np
import pytest
import torch

from myna.data.shards import open_dataset
from myna.errors import ModelError
from myna.evaluate.loss import validation_sums
from myna.evaluate.perplexity import perplexity_scores, perplexity_sums, windows
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

V, BLOCK = 257, 16
IS_TEXT = np.arange(V) < 256


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, vocab_size=V)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    return network


@torch.no_grad()
def by_definition(network, ids, length: int, stride: int) -> np.ndarray:
    """The cost of each token after the first: window by window, those that no window before has scored."""
    costs: list[float] = []
    for begin in range(0, len(ids), stride):
        inputs, targets = ids[begin : begin + length], ids[begin + 1 : begin + length + 1]
        inputs = inputs[: len(targets)]
        if not targets:
            break
        log_p = network(torch.tensor([inputs]))[0].log_softmax(dim=1)
        nats = -log_p.gather(1, torch.tensor(targets)[:, None])[:, 0].double()
        fresh = begin + len(targets) - len(costs)
        costs += nats[len(nats) - fresh :].tolist() if fresh > 0 else []
    return np.array(costs)


@pytest.mark.parametrize(("length", "stride"), [(16, 8), (16, 16), (16, 1), (7, 3), (1, 1)])
@pytest.mark.parametrize("n_ids", [2, 16, 17, 18, 61])
def test_each_token_is_scored_once_with_enough_before_it(model, length, stride, n_ids):
    ids = np.random.default_rng(0).integers(0, V, n_ids)
    spans = list(windows(n_ids, length, stride))
    assert [n for _, scored, end in spans for n in range(scored, end)] == list(range(1, n_ids))
    for number, (first, scored, end) in enumerate(spans):
        assert scored - first >= (1 if number == 0 else length - stride + 1)  # ids before it
        assert end - 1 - first <= length
    sums = perplexity_sums(model, ids, IS_TEXT, length=length, stride=stride)
    assert sums[1] == n_ids - 1
    costs = by_definition(model, ids.tolist(), length, stride)
    assert float(sums[0]) == pytest.approx(costs.sum(), rel=1e-6)
    assert float(sums[2]) == pytest.approx(costs[ids[1:] < 256].sum(), rel=1e-6)


def test_ranks_add_up_to_the_whole_and_are_asked_equally_often(model):
    ids = np.random.default_rng(2).integers(0, V, 3000)
    how = {"length": 16, "stride": 8}
    whole = perplexity_sums(model, ids, IS_TEXT, **how)
    asked, done = [], []
    parts = []
    for rank in range(3):
        calls: list[int] = []
        parts.append(
            perplexity_sums(
                model,
                ids,
                IS_TEXT,
                rank=rank,
                world_size=3,
                before_batch=lambda calls=calls: calls.append(1),
                on_tokens=done.append,
                **how,
            )
        )
        asked.append(len(calls))
    assert torch.allclose(torch.stack(parts).sum(dim=0), whole, rtol=1e-9)
    assert len(set(asked)) == 1
    assert sum(done) == 2999


def test_windows_side_by_side_give_the_validation_loss(model, small_dataset):
    val, tokenizer = open_dataset(small_dataset).val, Tokenizer.bytes()
    ids = val.read(0, val.n_tokens)
    sums = perplexity_sums(model, ids, tokenizer.text_ids(), length=16, stride=16)
    expected = validation_sums(model, val, tokenizer.id_bytes())
    assert sums.tolist() == pytest.approx(expected[:3].tolist(), rel=1e-6)


@pytest.mark.parametrize(("nats", "name"), [(math.nan, "nan"), (math.inf, "inf"), (1e6, "inf")])
def test_no_score_where_the_output_is_not_finite(nats, name):
    with pytest.raises(ModelError, match=f"perplexity is {name}"):
        perplexity_scores(torch.tensor([nats, 1, nats], dtype=torch.float64), 3)
