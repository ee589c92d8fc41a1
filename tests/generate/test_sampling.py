import math

import pytest
import torch

from myna.errors import UsageError
from myna.generate.sampling import Draw, Sampling, choose, kept_probabilities, log_probabilities


class FixedDraw(Draw):
    """Hands out the same number always."""

    def __init__(self, sampling: Sampling, number: float):
        super().__init__(sampling)
        self.number = number

    def uniform(self) -> float:
        return self.number


def drawn(logits: torch.Tensor, sampling: Sampling) -> list[int]:
    return choose(logits, [Draw(sampling, row) for row in range(len(logits))])


def fixed(logits: torch.Tensor, sampling: Sampling, number: float) -> list[int]:
    return choose(logits, [FixedDraw(sampling, number)] * len(logits))


def distribution(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What `choose` draws from, by id: (B, V), renormalised."""
    probabilities, ids = kept_probabilities(logits, sampling)
    if ids is None:
        ids = torch.arange(logits.shape[1]).expand_as(probabilities)
    by_id = torch.zeros_like(logits).scatter(1, ids, probabilities)
    return by_id / by_id.sum(dim=1, keepdim=True)


def naive(logits: list[float], sampling: Sampling) -> list[float]:
    """Temperature, top-k, top-p (the smallest set that holds top_p or more), min-p in plain Python."""
    weights = [math.exp(x / sampling.temperature) for x in logits]
    order = sorted(range(len(logits)), key=lambda i: -weights[i])[: sampling.top_k]
    total = sum(weights[i] for i in order)
    kept, held = [], 0.0
    for i in order:
        if held >= (1.0 if sampling.top_p is None else sampling.top_p):
            break
        kept.append(i)
        held += weights[i] / total
    kept = [i for i in kept if weights[i] >= (sampling.min_p or 0) * weights[order[0]]]
    left = sum(weights[i] for i in kept)
    return [weights[i] / left if i in kept else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 4, 100])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("min_p", [None, 0.0, 0.2, 1.0])
def test_filters_agree_with_a_plain_reading(temperature, top_k, top_p, min_p):
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(1)) * 2
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for row, found in zip(logits.tolist(), distribution(logits, sampling).tolist(), strict=True):
        assert found == pytest.approx(naive(row, sampling), abs=1e-6)


def test_drawn_frequencies_follow_the_distribution():
    logits = torch.tensor([[1.0, 0.0, -1.0, 3.0]]).expand(4000, 4)
    sampling = Sampling(temperature=1.5, top_k=3, seed=5)
    counts = torch.bincount(torch.tensor(drawn(logits, sampling)), minlength=4) / 4000
    expected = distribution(logits[:1], sampling)[0]
    assert torch.allclose(counts, expected, atol=0.03)
    assert counts[2] == 0  # outside the top 3


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0 - 2**-53])
def test_an_id_of_probability_zero_is_never_drawn(number):
    logits = torch.full((2, 50257), -1e9)
    logits[0, 50000] = 5.0
    logits[1, 3] = 5.0
    for sampling in (Sampling(), Sampling(top_p=0.999), Sampling(top_k=40), Sampling(temperature=1e-8)):
        assert fixed(logits, sampling, number) == [50000, 3]


def test_the_largest_draw_gives_the_last_id_that_is_kept():
    logits = torch.zeros(1, 50257)  # 50,257 equal terms: where a running sum in fp32 drifts
    assert fixed(logits, Sampling(), 1.0 - 2**-53) == [50256]
    assert fixed(logits, Sampling(), 0.0) == [0]


def test_greedy_takes_the_most_likely_and_a_tiny_temperature_comes_to_the_same():
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(2))
    best = logits.argmax(dim=1).tolist()
    assert drawn(logits, Sampling(temperature=0)) == best
    assert drawn(logits, Sampling(temperature=1e-30)) == best


def test_a_text_draws_by_seed_and_row_alone():
    rows = [Draw(Sampling(seed=11), row) for row in range(5)]
    numbers = [[draw.uniform() for draw in rows] for _ in range(3)]
    again = Draw(Sampling(seed=11, top_k=3), 2, [1, 2, 3])
    assert [step[2] for step in numbers] == [again.uniform() for _ in range(3)]
    assert len({x for step in numbers for x in step}) == 15
    other = Draw(Sampling(seed=12), 0).uniform()
    assert other not in numbers[0]  # neither the same stream, nor the same one row on


def test_no_seed_differs_from_time_to_time():
    assert Draw(Sampling()).uniform() != Draw(Sampling()).uniform()


def test_texts_of_different_rules_are_each_drawn_by_their_own():
    logits = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)) * 2
    rules = [
        {"temperature": 0}, {}, {"top_k": 2}, {"top_p": 0.3}, {"min_p": 0.5}, {"repetition_penalty": 3.0},
        {"temperature": 0, "repetition_penalty": 9.0}, {"temperature": 2.0, "top_k": 5},
    ]  # fmt: skip
    samplings = [Sampling(seed=3, **rules[row % len(rules)]) for row in range(len(logits))]
    held = [[row % 30, 3] for row in range(len(logits))]
    together = choose(logits, [Draw(s, n, held[n]) for n, s in enumerate(samplings)])
    assert together == [choose(logits[n : n + 1], [Draw(s, n, held[n])])[0] for n, s in enumerate(samplings)]


def test_the_repetition_penalty_knows_the_prompt_and_what_came_since():
    logits, greedy = torch.tensor([[2.0, 1.9, -1.0, 1.8]]), Sampling(temperature=0, repetition_penalty=1.1)
    draw, said = Draw(greedy, 0, [0]), []
    for _ in range(3):
        said += choose(logits, [draw])
        draw.note(said[-1])
    assert said == [1, 0, 0]  # 2 / 1.1 = 1.82 beats 1.8; 1.9 / 1.1 = 1.73 does not
    negative = torch.tensor([[-1.0, -1.05]])
    assert choose(negative, [Draw(greedy, 0, [0])]) == [1]
    assert choose(negative, [Draw(Sampling(temperature=0), 0, [0])]) == [0]


def test_log_probabilities_are_before_every_filter():
    logits = torch.tensor([1.0, 3.0, 2.0])
    found, logs = log_probabilities(logits, 0, 2), logits.log_softmax(0)
    assert found.chosen == pytest.approx(float(logs[0]))
    assert [id for id, _ in found.likeliest] == [1, 2]
    assert [value for _, value in found.likeliest] == pytest.approx([float(logs[1]), float(logs[2])])
    assert log_probabilities(logits, 0, 5).likeliest[-1][0] == 0  # no more than there are
    assert log_probabilities(logits, 0, 0).likeliest == ()


def test_sampling_leaves_torch_generator_alone():
    before = torch.get_rng_state()
    drawn(torch.randn(2, 9, generator=torch.Generator().manual_seed(0)), Sampling())
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
        ({"min_p": -0.1}, "min-p"),
        ({"min_p": 1.1}, "min-p"),
        ({"min_p": math.nan}, "min-p"),
        ({"repetition_penalty": 0.0}, "repetition-penalty"),
        ({"repetition_penalty": math.inf}, "repetition-penalty"),
        ({"temperature": 10**400}, "temperature is further from 0 than any float"),
        ({"repetition_penalty": -(10**5000)}, "repetition-penalty is further from 0 than any float"),
        ({"logprobs": 6}, "logprobs is 6"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"stop": "END"}, "give a list of texts"),
        ({"stop": ["", "END"]}, "stop text is empty"),
    ],
)
def test_values_that_cannot_be_are_refused_in_a_line(values, word):
    with pytest.raises(UsageError, match=word) as caught:
        Sampling(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-300, 1e-40])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.9}])
def test_a_tiny_temperature_is_greedy(temperature, options):
    logits = torch.tensor([[1.0, 3.0, 2.9999998, -3e38], [-3e38, 3e38, 0.0, 1.0]])
    assert fixed(logits, Sampling(temperature=temperature, **options), 1.0 - 2**-53) == [1, 1]


@pytest.mark.parametrize("temperature", [1e300, 10**300])
def test_a_huge_temperature_is_uniform(temperature):
    """Also a whole number that torch would not take."""
    logits = torch.tensor([[-3e38, 3e37, 0.0, 1.0]])
    sampling = Sampling(temperature=temperature)
    assert torch.equal(distribution(logits, sampling), torch.full((1, 4), 0.25))
    penalised = Sampling(temperature=temperature, repetition_penalty=10**30, min_p=1)
    assert choose(logits, [Draw(penalised, 0, [1])])[0] in range(4)
