import math

import numpy as np
import pytest
import torch

from myna.data.split import Split
from myna.errors import DataError, ModelError
from myna.evaluate.loss import validation_scores, validation_sums, why_no_bits_per_byte
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT

V = 60  # ids 0 to 58 stand for 1 to 3 bytes, 59 is special
ID_BYTES = np.array([1 + i % 3 for i in range(59)] + [0])


class ArraySplit(Split):
    """A split that lies in memory."""

    def __init__(self, ids: np.ndarray):
        super().__init__("made up (val)", [], V)
        self.ids, self.n_tokens = ids, len(ids)

    def read(self, start: int, count: int, ring: bool = False) -> np.ndarray:
        assert 0 <= start <= start + count <= self.n_tokens
        return self.ids[start : start + count]


def split_of(n_tokens: int) -> ArraySplit:
    ids = np.random.default_rng(0).integers(0, V, n_tokens)
    ids[::9] = 59
    return ArraySplit(ids)


def small_model(block_size: int = 8, dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    return GPT(
        GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=V, dropout=dropout)
    ).eval()


TINY = small_model()


def naive_sums(model: GPT, ids: np.ndarray, T: int, limit: int) -> list[float]:
    """Window by window, target by target, with all logits in sight."""
    nats = text_nats = 0.0
    targets = text_bytes = 0
    for start in range(0, min(limit, len(ids) - 1), T):
        window = torch.from_numpy(ids[start : start + T + 1])
        with torch.no_grad():
            log_probabilities = model(window[None, :-1])[0].double().log_softmax(dim=-1)
        for position, target in enumerate(window[1:].tolist()):
            if start + position < limit:
                cost = -float(log_probabilities[position, target])
                nats, targets = nats + cost, targets + 1
                if target != 59:
                    text_nats, text_bytes = text_nats + cost, text_bytes + int(ID_BYTES[target])
    return [nats, targets, text_nats, text_bytes]


@pytest.mark.parametrize("n_tokens", [2, 9, 10, 83, 161])
@pytest.mark.parametrize("batch_tokens", [1, 24, 1000])
def test_sums_are_those_of_the_definition(n_tokens, batch_tokens):
    model, split = small_model(), split_of(n_tokens)
    found = validation_sums(model, split, ID_BYTES, batch_tokens=batch_tokens)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(naive_sums(model, split.ids, 8, 10**9), rel=1e-6)
    assert found[1] == n_tokens - 1  # each target once


@pytest.mark.parametrize("limit", [1, 20, 24])
def test_the_limit_counts_targets(limit):
    model, split = small_model(), split_of(100)
    found = validation_sums(model, split, ID_BYTES, limit=limit, sequence_length=5)
    assert found.tolist() == pytest.approx(naive_sums(model, split.ids, 5, limit), rel=1e-6)
    assert found[1] == limit


@pytest.mark.parametrize("world_size", [2, 3, 40])
def test_ranks_add_up_to_the_whole(world_size):
    model, split = small_model(), split_of(161)
    whole = validation_sums(model, split, ID_BYTES, batch_tokens=32)
    parts = [
        validation_sums(model, split, ID_BYTES, batch_tokens=32, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    total = torch.stack(parts).sum(dim=0)
    assert total.tolist() == pytest.approx(whole.tolist(), rel=1e-6)
    assert validation_scores(total) == pytest.approx(validation_scores(whole), rel=1e-6)


# Targets and batches in awkward numbers: a short last window with and without whole ones before it on its rank.
@pytest.mark.parametrize("n_tokens", [2, 9, 10, 41, 42, 65, 67, 161])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 40])
def test_each_rank_is_asked_equally_often_before_a_batch(n_tokens, world_size):
    asked, batches = [0] * world_size, [0] * world_size
    for rank in range(world_size):

        def ask(rank=rank):
            asked[rank] += 1

        def done(_, rank=rank):
            batches[rank] += 1

        validation_sums(
            TINY,
            split_of(n_tokens),
            ID_BYTES,
            batch_tokens=16,
            rank=rank,
            world_size=world_size,
            on_targets=done,
            before_batch=ask,
        )
    assert asked == [max(batches)] * world_size


def test_the_evaluation_ends_where_it_is_told_to():
    def stop():
        raise KeyboardInterrupt

    model = small_model().train()
    with pytest.raises(KeyboardInterrupt):
        validation_sums(model, split_of(50), ID_BYTES, before_batch=stop)
    assert model.training


def test_scores_leave_special_tokens_out_of_bits_per_byte():
    scores = validation_scores(torch.tensor([300 * math.log(2), 100, 240 * math.log(2), 120]))
    assert scores == pytest.approx({"val_loss": 3 * math.log(2), "val_bits_per_byte": 2.0})


def test_text_without_bytes_has_no_bits_per_byte():
    scores = validation_scores(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert scores == {"val_loss": 1.0}


@pytest.mark.parametrize(
    "sums", [(math.nan, 1.0, 1.0, 1.0), (math.inf, 1.0, 1.0, 1.0), (1.0, 1.0, math.nan, 1.0)]
)
def test_a_score_that_is_not_finite_is_an_error(sums):
    with pytest.raises(ModelError, match="not finite"):
        validation_scores(torch.tensor(sums))


def test_a_split_of_more_ids_than_the_model_is_refused():
    """Its ids might be those that stand for the rows that pad the vocabulary."""
    with pytest.raises(DataError, match="99 ids, and the model has 60"):
        validation_sums(small_model(), Split("val", [], 99), np.zeros(99))


class Changing:
    """As much of a tokenizer that changes text as a score asks for."""

    name, is_exact = "wordpiece", False


def test_where_ids_have_no_bytes_the_datasets_own_count_is_taken():
    model, split = small_model(), split_of(161)
    with_bytes = validation_sums(model, split, ID_BYTES)
    without = validation_sums(model, split, None, text_ids=ID_BYTES > 0)
    assert without[:3].tolist() == with_bytes[:3].tolist()
    assert math.isnan(without[3])
    split._bytes = 400
    scores = validation_scores(without, split)
    assert scores["val_bits_per_byte"] == pytest.approx(float(without[2]) / (math.log(2) * 400))
    assert why_no_bits_per_byte(split, Changing()) is None
    ranks = [
        validation_sums(model, split, None, text_ids=ID_BYTES > 0, rank=rank, world_size=2)
        for rank in range(2)
    ]
    assert validation_scores(ranks[0] + ranks[1], split) == pytest.approx(scores, rel=1e-6)


def test_without_a_count_of_all_that_is_scored_bits_per_byte_are_left_out():
    split = split_of(161)
    sums = validation_sums(small_model(), split, None, text_ids=ID_BYTES > 0, limit=100)
    for count in (None, 400):  # no count; and one of more than was scored
        split._bytes = count
        assert validation_scores(sums, split) == {"val_loss": float(sums[0] / sums[1])}
    assert "160 targets are too many" in why_no_bits_per_byte(split, Changing(), limit=100)
    split._bytes = None
    assert "doesn't state the bytes" in why_no_bits_per_byte(split, Changing())


def test_the_unknown_token_counts_as_text():
    text = ID_BYTES > 0
    text[59] = True
    sums = validation_sums(small_model(), split_of(161), None, text_ids=text)
    assert sums[0] == sums[2]


def test_training_is_not_disturbed():
    model = small_model(dropout=0.5).train()
    before = torch.get_rng_state()
    first = validation_sums(model, split_of(50), ID_BYTES)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, validation_sums(model.eval(), split_of(50), ID_BYTES))


def test_lower_precision_comes_close():
    model, split = small_model(), split_of(161)
    exact = validation_sums(model, split, ID_BYTES)
    low = validation_sums(model, split, ID_BYTES, autocast_dtype=torch.bfloat16)
    assert float(low[0]) != float(exact[0])
    assert low.tolist() == pytest.approx(exact.tolist(), rel=0.01)


def test_progress_is_told_in_targets():
    told: list[int] = []
    validation_sums(small_model(), split_of(83), ID_BYTES, batch_tokens=32, on_targets=told.append)
    assert sum(told) == 82


def test_nothing_to_score_is_an_error():
    with pytest.raises(DataError, match="made up"):
        validation_sums(small_model(), split_of(1), ID_BYTES)
