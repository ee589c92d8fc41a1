import pytest
import torch

from myna.errors import ModelError, UsageError
from myna.generate.engine import generate, stream
from myna.generate.sampling import Sampling
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT


def small_model(block_size: int = 16, vocab_size: int = 61, dropout: float = 0.0) -> GPT:
    """Random weights, larger than at the start of training, so that logits are well apart."""
    torch.manual_seed(3)
    model = GPT(
        GPTConfig(
            n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=vocab_size, dropout=dropout
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        model.wte.weight[vocab_size:] = 100.0  # padding rows that would win if they were ever looked at
    return model


def prompts(rows: int, length: int, vocab_size: int = 61) -> torch.Tensor:
    return torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(9))


def collected(model: GPT, ids, sampling: Sampling, **how) -> list[list[int]]:
    """`generate` with the arguments that only `stream` has."""
    steps = list(stream(model, ids, sampling, **how))
    return [[id for id in row if id is not None] for row in zip(*steps, strict=True)]


def naive_greedy(model: GPT, ids: list[int], max_tokens: int) -> list[int]:
    """The stated rule, read plainly: the last block_size ids; when full, on from the last half."""
    block_size = model.config.block_size
    window, new = ids[-block_size:], []
    with torch.no_grad():
        for _ in range(max_tokens):
            if len(window) > block_size:
                window = window[-max(1, block_size // 2) :]
            logits = model(torch.tensor([window]))[0, -1]
            new.append(int(logits.argmax()))
            window = [*window, new[-1]]
    return new


@pytest.mark.parametrize("block_size", [1, 2, 7, 16])
@pytest.mark.parametrize("length", [1, 6, 16, 40])
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_follows_the_stated_rule_across_the_window(block_size, length, use_cache):
    model, ids = small_model(block_size).eval(), prompts(2, length)
    found = collected(model, ids, Sampling(max_tokens=40, temperature=0), use_cache=use_cache)
    assert found == [naive_greedy(model, row, 40) for row in ids.tolist()]


def test_sampled_ids_are_the_same_with_and_without_cache():
    sampling = Sampling(max_tokens=40, temperature=0.9, top_k=20, top_p=0.95, seed=4)
    for ids in (prompts(3, 5), RAGGED):
        found = [collected(small_model(), ids, sampling, use_cache=use_cache) for use_cache in (True, False)]
        assert found[0] == found[1]


RAGGED = [row[:n] for row, n in zip(prompts(6, 40).tolist(), (3, 1, 16, 9, 40, 1), strict=True)]


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 16])
def test_rows_of_different_lengths_are_each_what_they_are_alone(block_size, monkeypatch):
    """Their windows fill and slide one after the other. What lies in fresh memory reaches no row."""
    model = small_model(block_size).eval()
    monkeypatch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))
    for rows in (RAGGED, RAGGED[:2]):
        found = generate(model, rows, max_tokens=40, temperature=0)
        assert found == [naive_greedy(model, row, 40) for row in rows]


def test_sampled_rows_of_different_lengths_are_those_drawn_alone():
    model, sampling = small_model(), Sampling(max_tokens=40, top_k=20, seed=4, stop_ids=(7, 8))
    together = collected(model, RAGGED, sampling)
    for number, row in enumerate(RAGGED):
        assert collected(model, [row], sampling, first_row=number) == [together[number]]
    assert len({len(row) for row in together}) > 1  # some met a stop


def test_a_row_whose_window_is_full_is_computed_again_by_itself():
    """The others go on, one id at a time."""
    model, shapes = small_model(16).eval(), []
    hidden = model.hidden
    model.hidden = lambda ids, cache: shapes.append(tuple(ids.shape)) or hidden(ids, cache)
    generate(model, RAGGED[:3], max_tokens=11, temperature=0)
    # A padded pass; the third row is full, and keeps 8 ids, of which the newest goes with the others.
    assert shapes == [(3, 16), (1, 7), *[(3, 1)] * 9, (1, 7), (3, 1)]
    shapes.clear()
    generate(model, prompts(3, 16), max_tokens=3, temperature=0)
    assert shapes == [(3, 16), (3, 8), (3, 1)]  # all are full: they go together


def test_a_row_does_not_depend_on_how_many_others_there_are():
    model, ids = small_model(), prompts(1, 5)
    five = generate(model, ids.expand(5, -1), max_tokens=30, seed=8)
    assert five[0] == generate(model, ids, max_tokens=30, seed=8)[0]
    assert len({tuple(row) for row in five}) == 5


def test_rows_that_stop_early_do_not_disturb_the_others():
    model, ids = small_model(), prompts(6, 4)
    free = generate(model, ids, max_tokens=60, seed=1)
    stop = free[0][2]
    stopped = generate(model, ids, max_tokens=60, seed=1, stop_ids=[stop])
    for row, cut in zip(free, stopped, strict=True):
        assert cut == (row[: row.index(stop)] if stop in row else row)
    assert len({len(row) for row in stopped}) > 1


def test_the_stream_gives_none_after_a_stop_and_ends_when_all_have_stopped():
    model, ids = small_model(), prompts(2, 4)
    first, second = generate(model, ids, max_tokens=10, seed=2)
    assert first[1] != second[1]
    steps = list(stream(model, ids, Sampling(max_tokens=10, seed=2, stop_ids=[first[1]])))
    assert [step[0] for step in steps] == [first[0]] + [None] * (len(steps) - 1)
    assert not list(stream(model, ids, Sampling(max_tokens=10, seed=2, stop_ids=range(61))))


def test_no_id_outside_the_vocabulary():
    model, ids = small_model(), prompts(4, 4)
    for options in ({"temperature": 0}, {"temperature": 50.0, "seed": 0}):
        for row in generate(model, ids, max_tokens=100, **options):
            assert all(0 <= id < 61 for id in row)
    bold = Sampling(max_tokens=100, temperature=50.0, seed=0)
    for row in collected(model, ids % 10, bold, vocab_size=10):
        assert all(0 <= id < 10 for id in row)


def test_zero_tokens_is_nothing():
    assert generate(small_model(), [[1], [2]], max_tokens=0) == [[], []]


def test_training_is_not_disturbed():
    model = small_model(dropout=0.5).train()
    state = torch.get_rng_state()
    first = generate(model, prompts(2, 4), max_tokens=20, temperature=0)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert first == generate(model.eval(), prompts(2, 4), max_tokens=20, temperature=0)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_stream_that_is_dropped_half_way_leaves_the_model_in_training_mode():
    model = small_model(dropout=0.5).train()
    steps = stream(model, prompts(2, 4), Sampling(max_tokens=20))
    next(steps)
    assert model.training
    model(prompts(2, 4)).sum().backward()  # its tensors are no inference tensors


def test_lower_precision_is_taken_when_asked_for():
    model, greedy = small_model().eval(), Sampling(max_tokens=30, temperature=0)
    rows = collected(model, prompts(2, 4), greedy, autocast_dtype=torch.bfloat16)
    assert [len(row) for row in rows] == [30, 30]
    plain = collected(model, prompts(2, 4), greedy, autocast_dtype=torch.bfloat16, use_cache=False)
    assert rows == plain


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "empty"),
        ([[]], "empty"),
        (torch.zeros(2, 0, dtype=torch.int64), "empty"),
        ([[1, 2], []], "empty"),
        ([1, [2]], "rows of integers"),
        ([1, 2.5], "rows of integers"),
        ([[1, 2.5]], "rows of integers"),
        ("abc", "rows of integers"),
        (None, "rows of integers"),
        ([1, 61], "61 is outside the vocabulary"),
        ([[61]], "61 is outside the vocabulary"),
        ([[-1]], "-1 is outside the vocabulary"),
        (torch.zeros(3, dtype=torch.int64), "shape"),
        (torch.zeros(1, 3), "integers"),
    ],
)
def test_prompts_that_cannot_be_are_refused_in_a_line(ids, words):
    with pytest.raises(ModelError, match=words) as caught:
        generate(small_model(), ids, max_tokens=1)
    assert "\n" not in str(caught.value)


def test_a_list_of_ids_is_one_row():
    model = small_model()
    assert generate(model, [1, 2, 3], max_tokens=9, seed=0) == generate(
        model, [[1, 2, 3]], max_tokens=9, seed=0
    )


@pytest.mark.parametrize("model", [None, "gpt2", 3])
def test_what_is_no_model_is_refused_in_our_words(model):
    with pytest.raises(ModelError, match=r"the model is .*; give a network"):
        generate(model, [1, 2], max_tokens=1)


@pytest.mark.parametrize(
    "option",
    [
        {"max_tokens": "3"}, {"max_tokens": None}, {"max_tokens": 2.0}, {"temperature": "hot"}, {"temperature": None},
        {"top_k": 1.5}, {"top_p": "x"}, {"seed": 0.5}, {"stop_ids": 3}, {"stop_ids": "ab"}, {"stop_ids": [None]},
    ],
)  # fmt: skip
def test_an_option_of_another_type_is_refused_in_our_words(option):
    with pytest.raises(UsageError, match="give a"):
        generate(small_model(), [1, 2], **({"max_tokens": 1} | option))


def test_options_are_checked_before_any_work():
    for options in ({"max_tokens": -1}, {"max_tokens": 1, "top_p": 2.0}, {"max_tokens": 1, "seed": -3}):
        with pytest.raises(UsageError):
            generate(None, [[1]], **options)
