import math

import pytest
import torch

from myna.errors import ModelError, UsageError
from myna.generate.sampling import RowDraws, Sampling, choose, kept_probabilities


class FixedDraws:
    """Hands out the same number for every row."""

    def __init__(self, number: float, rows: int):
        self.number, self.rows = number, rows

    def next(self) -> torch.Tensor:
        return torch.full((self.rows,), self.number, dtype=torch.float64)


def distribution(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What `choose` draws from, by id: (B, V), renormalised."""
    probabilities, ids = kept_probabilities(logits, sampling)
    if ids is None:
        ids = torch.arange(logits.shape[1]).expand_as(probabilities)
    by_id = torch.zeros_like(logits).scatter(1, ids, probabilities)
    return by_id / by_id.sum(dim=1, keepdim=True)


def naive(logits: list[float], sampling: Sampling) -> list[float]:
    """Temperature, top-k, top-p in plain Python; the smallest set that holds top_p or more."""
    weights = [math.exp(x / sampling.temperature) for x in logits]
    order = sorted(range(len(logits)), key=lambda i: -weights[i])[: sampling.top_k]
    total = sum(weights[i] for i in order)
    kept, held = [], 0.0
    for i in order:
        if held >= (1.0 if sampling.top_p is None else sampling.top_p):
            break
        kept.append(i)
        held += weights[i] / total
    left = sum(weights[i] for i in kept)
    return [weights[i] / left if i in kept else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 4, 100])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 1.0])
def test_filters_agree_with_a_plain_reading(temperature, top_k, top_p):
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(1)) * 2
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    for row, found in zip(logits.tolist(), distribution(logits, sampling).tolist(), strict=True):
        assert found == pytest.approx(naive(row, sampling), abs=1e-6)


def test_drawn_frequencies_follow_the_distribution():
    logits = torch.tensor([[1.0, 0.0, -1.0, 3.0]]).expand(4000, 4)
    sampling = Sampling(temperature=1.5, top_k=3)
    counts = torch.bincount(choose(logits, sampling, RowDraws(5, 4000)), minlength=4) / 4000
    expected = distribution(logits[:1], sampling)[0]
    assert torch.allclose(counts, expected, atol=0.03)
    assert counts[2] == 0  # outside the top 3


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0 - 2**-53])
def test_an_id_of_probability_zero_is_never_drawn(number):
    logits = torch.full((2, 50257), -1e9)
    logits[0, 50000] = 5.0
    logits[1, 3] = 5.0
    for sampling in (Sampling(), Sampling(top_p=0.999), Sampling(top_k=40), Sampling(temperature=1e-8)):
        assert choose(logits, sampling, FixedDraws(number, 2)).tolist() == [50000, 3]


def test_the_largest_draw_gives_the_last_id_that_is_kept():
    logits = torch.zeros(1, 50257)  # 50,257 equal terms: where a running sum in fp32 drifts
    assert choose(logits, Sampling(), FixedDraws(1.0 - 2**-53, 1)).tolist() == [50256]
    assert choose(logits, Sampling(), FixedDraws(0.0, 1)).tolist() == [0]


def test_greedy_takes_the_most_likely_and_a_tiny_temperature_comes_to_the_same():
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(2))
    best = logits.argmax(dim=1).tolist()
    assert choose(logits, Sampling(temperature=0), RowDraws(0, 5)).tolist() == best
    assert choose(logits, Sampling(temperature=1e-30), RowDraws(0, 5)).tolist() == best


def test_a_row_draws_by_seed_and_row_alone():
    five, one = RowDraws(11, 5), RowDraws(11, 1)
    numbers = [five.next() for _ in range(3)]
    assert [float(n[0]) for n in numbers] == [float(one.next()[0]) for _ in range(3)]
    assert len({float(x) for n in numbers for x in n}) == 15
    assert float(RowDraws(12, 1).next()[0]) != float(numbers[0][0])
    assert float(RowDraws(12, 1).next()[0]) != float(numbers[0][1])  # not the same stream one row on


def test_no_seed_differs_from_time_to_time():
    assert float(RowDraws(None, 1).next()[0]) != float(RowDraws(None, 1).next()[0])


def test_sampling_leaves_torch_generator_alone():
    before = torch.get_rng_state()
    choose(torch.randn(2, 9, generator=torch.Generator().manual_seed(0)), Sampling(), RowDraws(None, 2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"max_tokens": -1}, "max tokens"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top-k"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.01}, "top-p"),
        ({"top_p": math.nan}, "top-p"),
    ],
)
def test_values_that_cannot_be_are_refused_in_a_line(values, word):
    with pytest.raises(UsageError, match=word) as caught:
        Sampling(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_output_that_is_not_finite_is_an_error(bad):
    logits = torch.zeros(2, 5)
    logits[1, 2] = bad
    for sampling in (Sampling(), Sampling(temperature=0)):
        with pytest.raises(ModelError, match="not finite"):
            choose(logits, sampling, RowDraws(0, 2))


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-300, 1e-40])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.9}])
def test_a_tiny_temperature_is_greedy(temperature, options):
    logits = torch.tensor([[1.0, 3.0, 2.9999998, -3e38], [-3e38, 3e38, 0.0, 1.0]])
    chosen = choose(logits, Sampling(temperature=temperature, **options), FixedDraws(1.0 - 2**-53, 2))
    assert chosen.tolist() == [1, 1]


def test_a_huge_temperature_is_uniform():
    logits = torch.tensor([[-3e38, 3e37, 0.0, 1.0]])
    assert torch.equal(distribution(logits, Sampling(temperature=1e300)), torch.full((1, 4), 0.25))


def test_rows_drawn_apart_are_those_drawn_together():
    together, apart = RowDraws(7, 5).next(), [RowDraws(7, 2, first_row=r).next() for r in (0, 2)]
    assert torch.equal(together[:4], torch.cat(apart))
