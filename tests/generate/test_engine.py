import pytest
import torch

from myna.errors import ModelError, UsageError
from myna.generate.engine import generate, stream
from myna.model.gpt2 import GPT, GPTConfig


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
    found = generate(model, ids, max_tokens=40, temperature=0, use_cache=use_cache)
    assert found == [naive_greedy(model, row, 40) for row in ids.tolist()]


def test_sampled_ids_are_the_same_with_and_without_cache():
    model, ids = small_model(), prompts(3, 5)
    options = {"max_tokens": 40, "temperature": 0.9, "top_k": 20, "top_p": 0.95, "seed": 4}
    assert generate(model, ids, **options) == generate(model, ids, **options, use_cache=False)


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
    steps = list(stream(model, ids, max_tokens=10, seed=2, stop_ids=[first[1]]))
    assert [step[0] for step in steps] == [first[0]] + [None] * (len(steps) - 1)
    assert len(list(stream(model, ids, max_tokens=10, seed=2, stop_ids=range(61)))) == 0


def test_no_id_outside_the_vocabulary():
    model, ids = small_model(), prompts(4, 4)
    for options in ({"temperature": 0}, {"temperature": 50.0, "seed": 0}):
        for row in generate(model, ids, max_tokens=100, **options):
            assert all(0 <= id < 61 for id in row)
    for row in generate(model, ids % 10, max_tokens=100, temperature=50.0, seed=0, vocab_size=10):
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
    steps = stream(model, prompts(2, 4), max_tokens=20)
    next(steps)
    assert model.training
    model(prompts(2, 4)).sum().backward()  # its tensors are no inference tensors


def test_lower_precision_is_taken_when_asked_for():
    model, ids = small_model().eval(), prompts(2, 4)
    rows = generate(model, ids, max_tokens=30, temperature=0, autocast_dtype=torch.bfloat16)
    assert [len(row) for row in rows] == [30, 30]
    plain = generate(model, ids, max_tokens=30, temperature=0, autocast_dtype=torch.bfloat16, use_cache=False)
    assert rows == plain


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "empty"),
        ([[]], "empty"),
        (torch.zeros(2, 0, dtype=torch.int64), "empty"),
        ([[1, 2], [3]], "different lengths"),
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


def test_options_are_checked_before_any_work():
    for options in ({"max_tokens": -1}, {"max_tokens": 1, "top_p": 2.0}, {"max_tokens": 1, "seed": -3}):
        with pytest.raises(UsageError):
            stream(small_model(), [[1]], **options)
