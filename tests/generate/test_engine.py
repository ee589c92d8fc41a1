import random

import pytest
import torch

from myna.errors import ModelError, UsageError
from myna.generate.engine import Engine, generate, run
from myna.generate.sampling import Draw, Sampling, choose
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


def collected(model: GPT, rows, sampling: Sampling, *, first_row: int = 0, **how) -> list[list[int]]:
    """`generate` with the arguments that only the engine has."""
    engine = Engine(model, **how)
    slots = [engine.add(list(row), sampling, first_row=first_row + n)[0] for n, row in enumerate(rows)]
    found = {slot: [] for slot in slots}
    for new in run(engine):
        found[new.slot] += [] if new.id is None else [new.id]
    return list(found.values())


def plain(model: GPT, ids: list[int], sampling: Sampling, row: int = 0) -> list[int]:
    """The stated rule, read plainly, without a cache: the last block_size ids; when full, on from the last half."""
    block_size = model.config.block_size
    window, new, draw = ids[-block_size:], [], Draw(sampling, row, ids)
    with torch.no_grad():
        for _ in range(sampling.max_tokens):
            if len(window) > block_size:
                if not sampling.slide:
                    break
                window = window[-max(1, block_size // 2) :]
            (id,) = choose(model(torch.tensor([window]))[:, -1], [draw])
            if id in sampling.stop_ids:
                break
            new.append(id)
            draw.note(id)
            window = [*window, id]
    return new


GREEDY = Sampling(max_tokens=40, temperature=0)


@pytest.mark.parametrize("block_size", [1, 2, 7, 16])
@pytest.mark.parametrize("length", [1, 6, 16, 40])
@pytest.mark.parametrize("piece", [3, 256])
def test_greedy_follows_the_stated_rule_across_the_window(block_size, length, piece):
    model, ids = small_model(block_size).eval(), prompts(2, length).tolist()
    assert collected(model, ids, GREEDY, piece=piece) == [plain(model, row, GREEDY) for row in ids]


RAGGED = [row[:n] for row, n in zip(prompts(6, 40).tolist(), (3, 1, 16, 9, 40, 1), strict=True)]


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 16])
def test_rows_of_different_lengths_are_each_what_they_are_alone(block_size, monkeypatch):
    """Their windows fill and slide one after the other. What lies in fresh memory reaches no row."""
    model = small_model(block_size).eval()
    monkeypatch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))
    for rows in (RAGGED, RAGGED[:2]):
        found = generate(model, rows, max_tokens=40, temperature=0)
        assert found == [plain(model, row, GREEDY) for row in rows]


def test_sampled_rows_of_different_lengths_are_those_drawn_alone():
    model, sampling = small_model(), Sampling(max_tokens=40, top_k=20, seed=4, stop_ids=(7, 8))
    together = collected(model, RAGGED, sampling)
    for number, row in enumerate(RAGGED):
        assert collected(model, [row], sampling, first_row=number) == [together[number]]
    assert len({len(row) for row in together}) > 1  # some met a stop


def test_what_goes_through_the_network_together():
    """Prompts in padded groups or in pieces, in turn; then one id of each text that runs, whoever waits."""
    model, shapes = small_model(64).eval(), []
    hidden = model.hidden
    model.hidden = lambda ids, cache: shapes.append(tuple(ids.shape)) or hidden(ids, cache)
    engine = Engine(model, piece=20)
    short, long = Sampling(max_tokens=3, temperature=0), Sampling(max_tokens=2, temperature=0)
    engine.add([1, 2, 3], short, count=2)
    engine.add([4, 5, 6, 7, 8], short)
    engine.add([9] * 50, long)
    engine.add([9] * 10, short)
    for wanted in (
        [(2, 5)],  # two prompts, padded, of which one is for two texts
        [(3, 1), (1, 20)],
        [
            (3, 1),
            (1, 10),
        ],  # then all three have their ids; the short one goes before the rest of the long one
        [(1, 1), (1, 20)],
        [(1, 1), (1, 10)],
        [(1, 1)],
    ):
        engine.step()
        assert shapes == wanted
        shapes.clear()
    assert not engine.busy


def test_a_row_whose_window_is_full_is_computed_again_by_itself():
    """The others go on, one id at a time."""
    model, shapes = small_model(16).eval(), []
    hidden = model.hidden
    model.hidden = lambda ids, cache: shapes.append(tuple(ids.shape)) or hidden(ids, cache)
    generate(model, RAGGED[:3], max_tokens=4, temperature=0)
    assert shapes == [(3, 16), (2, 1), (1, 8), (3, 1), (3, 1)]


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


def test_every_text_says_why_it_ended():
    model, ids = small_model().eval(), prompts(2, 4).tolist()
    first, second = (plain(model, row, Sampling(max_tokens=40, seed=2), n) for n, row in enumerate(ids))
    stop = first[1]
    engine = Engine(model)
    cut = Sampling(max_tokens=30, seed=2, stop_ids=[stop], slide=False)
    slots = [engine.add(row, cut, first_row=n)[0] for n, row in enumerate(ids)]
    found = {slot: [] for slot in slots}
    for new in run(engine):
        found[new.slot].append((new.id, new.finish_reason))
    assert found[slots[0]] == [(first[0], None), (None, "stop")]
    # The second meets no stop: 4 ids of prompt, 16 of window, and one more after the full window.
    assert stop not in second[:13]
    assert found[slots[1]] == [*[(id, None) for id in second[:12]], (second[12], "length")]
    assert [slot.finish_reason for slot in slots] == ["stop", "length"]
    engine.add(ids[0], Sampling(max_tokens=3, temperature=0))
    assert [new.finish_reason for new in run(engine)] == [None, None, "length"]
    assert engine.add([1], Sampling(max_tokens=0))[0].finish_reason == "length"
    assert not engine.busy


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_come_and_go_are_each_what_they_are_alone(seed):
    """Requests of every kind join, end, and are taken out, at random; earlier texts are used again."""
    model, random_ = small_model(16, dropout=0.1).eval(), random.Random(seed)
    engine = Engine(model, piece=5, prefix_bytes=40_000)
    beginnings = [[random_.randrange(61) for _ in range(14)] for _ in range(3)]
    open_, found, wanted, dropped = [], {}, {}, 0
    while len(wanted) < 40 or engine.busy:
        if len(wanted) < 40 and random_.random() < 0.5:
            ids = beginnings[random_.randrange(3)][: random_.randrange(1, 15)] + [
                random_.randrange(61)
            ] * random_.randrange(9)
            sampling = Sampling(
                max_tokens=random_.randrange(1, 30),
                temperature=random_.choice([0, 0.5, 1.0]),
                top_k=random_.choice([None, 5]),
                top_p=random_.choice([None, 0.8]),
                min_p=random_.choice([None, 0.1]),
                repetition_penalty=random_.choice([1.0, 1.3]),
                seed=random_.randrange(100),
                stop_ids=random_.sample(range(61), 2),
                slide=random_.random() < 0.5,
            )
            for n, slot in enumerate(engine.add(ids, sampling, count=random_.randrange(1, 4), first_row=2)):
                open_.append(slot)
                found[slot], wanted[slot] = [], plain(model, ids, sampling, 2 + n)
        if open_ and random_.random() < 0.05:
            slot = open_.pop(random_.randrange(len(open_)))
            engine.remove(slot)
            wanted[slot], dropped = wanted[slot][: len(found[slot])], dropped + 1
        for new in engine.step():
            found[new.slot] += [] if new.id is None else [new.id]
    assert found == wanted
    assert dropped
    assert len(engine.prefixes)


def test_an_error_of_the_model_empties_everything_and_the_next_text_is_right():
    model = small_model(64).eval()
    alone = plain(model, [1, 2, 3], GREEDY)
    engine = Engine(model, prefix_bytes=1 << 20)
    engine.add([1, 2, 3], GREEDY)
    list(run(engine))
    assert len(engine.prefixes) == 1
    slots = [*engine.add([5] * 9, GREEDY, count=2), *engine.add([6], GREEDY)]
    hidden, model.hidden = model.hidden, lambda ids, cache: 1 / 0
    with pytest.raises(ZeroDivisionError):
        engine.step()
    assert [slot.finish_reason for slot in slots] == ["error"] * 3
    assert not engine.busy
    assert not len(engine.prefixes)
    model.hidden = hidden
    engine.add([1, 2, 3], GREEDY)
    assert [new.id for new in run(engine)] == alone


def test_an_output_that_is_not_finite_ends_its_own_text_alone():
    model = small_model(64).eval()
    sampling = Sampling(max_tokens=8, temperature=0)
    with torch.no_grad():
        model.wte.weight[60] = float("nan")
        model.wte.weight[60, 1:] = 0.0
    engine = Engine(model, vocab_size=60, prefix_bytes=1 << 20)
    (good,), (bad,), (other,) = (engine.add(ids, sampling) for ids in ([1, 2, 3], [4, 60, 5], [7] * 6))
    said = {good: [], bad: [], other: []}
    while engine.busy:
        for new in engine.step():
            said[new.slot].append(new)
    (error,) = said[bad]
    assert error.finish_reason == "error"
    assert "not finite" in str(error.error)
    for slot, ids in ((good, [1, 2, 3]), (other, [7] * 6)):
        short = GPT(model.config)
        short.load_state_dict(model.state_dict())
        with torch.no_grad():
            short.wte.weight[60] = -100.0
        assert [new.id for new in said[slot]] == plain(short.eval(), ids, sampling)


def test_what_was_computed_once_is_not_computed_again():
    model, lengths = small_model(64).eval(), []
    hidden = model.hidden
    model.hidden = lambda ids, cache: lengths.append(ids.shape[1]) or hidden(ids, cache)
    engine, two = Engine(model, prefix_bytes=1 << 20), Sampling(max_tokens=2, temperature=0)
    a, b = [*range(20)], [*range(10), *range(30, 40)]
    said = {}
    for name, ids in (("a", a), ("b", b)):
        engine.add(ids, two)
        said[name] = [new.id for new in run(engine)]
    assert lengths == [20, 1, 10, 1]  # b shares its first ten with a
    lengths.clear()
    engine.add([*a, *said["a"], 50], two)  # a conversation goes on
    list(run(engine))
    engine.add(b, two)  # interleaved with another
    assert [new.id for new in run(engine)] == said["b"]
    assert lengths == [2, 1, 1, 1]
    assert len(engine.prefixes) == 2  # the longer a has taken the place of the shorter


def test_the_kept_texts_have_a_cap_and_the_oldest_goes_first():
    model = small_model(64).eval()
    a_text = 2 * 2 * 16 * 4 * 21  # layers, keys and values, width, fp32, positions
    engine, two = Engine(model, prefix_bytes=2 * a_text), Sampling(max_tokens=2, temperature=0)
    for first in (1, 2, 1, 3):
        engine.add([first] * 20, two)
        list(run(engine))
        assert engine.prefixes.n_bytes <= 2 * a_text
    assert engine.prefixes.longest([2] * 20) is None
    assert engine.prefixes.longest([1] * 20)[1] == engine.prefixes.longest([3] * 20)[1] == 20
    small = Engine(model, prefix_bytes=a_text - 1)
    small.add([1] * 20, two)
    list(run(small))
    assert len(small.prefixes) == 0


def test_log_probabilities_are_the_models_own():
    model = small_model().eval()
    engine = Engine(model, vocab_size=50)
    engine.add([1, 2, 3], Sampling(max_tokens=5, temperature=3.0, top_k=3, seed=1, logprobs=2))
    ids = [1, 2, 3]
    for new in run(engine):
        with torch.no_grad():
            logs = model(torch.tensor([ids]))[0, -1, :50].log_softmax(-1)
        assert new.logprobs.chosen == pytest.approx(float(logs[new.id]), abs=1e-5)
        values, likeliest = logs.topk(2)
        assert [id for id, _ in new.logprobs.likeliest] == likeliest.tolist()
        assert [value for _, value in new.logprobs.likeliest] == pytest.approx(values.tolist(), abs=1e-5)
        ids.append(new.id)


def test_no_id_outside_the_vocabulary():
    model, ids = small_model(), prompts(4, 4)
    for options in ({"temperature": 0}, {"temperature": 50.0, "seed": 0}):
        for row in generate(model, ids, max_tokens=100, **options):
            assert all(0 <= id < 61 for id in row)
    bold = Sampling(max_tokens=100, temperature=50.0, seed=0)
    for row in collected(model, (ids % 10).tolist(), bold, vocab_size=10):
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


@pytest.mark.parametrize(("max_tokens", "piece"), [(0, 256), (3, 4)])
def test_a_prompt_can_be_scored(max_tokens, piece):
    model, ids = small_model().eval(), prompts(1, 11)[0].tolist()
    engine = Engine(model, piece=piece, prefix_bytes=1 << 20)
    for _ in range(2):  # the second time the text is known, and scored all the same
        asked = Sampling(max_tokens=max_tokens, temperature=0, logprobs=1, prompt_logprobs=True)
        slots, other = engine.add(ids, asked, count=2), engine.add(ids, GREEDY)[0]
        found = {slot: [] for slot in (*slots, other)}
        for new in run(engine):
            found[new.slot].append(new.id)
        assert found[slots[0]] == (plain(model, ids, GREEDY)[:max_tokens] or [None])
        assert found[other] == plain(model, ids, GREEDY)
        with torch.no_grad():
            logs = model(torch.tensor([ids]))[0].log_softmax(-1)
        assert slots[0].prompt_logprobs is slots[1].prompt_logprobs
        first, *rest = slots[0].prompt_logprobs
        assert first is None
        assert [one.chosen for one in rest] == pytest.approx(
            [float(logs[n, id]) for n, id in enumerate(ids[1:])], abs=1e-5
        )
        assert [one.likeliest[0][0] for one in rest] == logs[:-1].argmax(-1).tolist()
        assert not other.prompt_logprobs


def test_a_prompt_over_the_window_is_not_scored_in_part():
    engine, asked = Engine(small_model(block_size=8)), Sampling(max_tokens=1, prompt_logprobs=True)
    (slot,) = engine.add([1] * 8, asked)
    list(run(engine))
    assert len(slot.prompt_logprobs) == 8
    with pytest.raises(ModelError, match="the prompt has 9 ids, and the model scores at most 8; shorten"):
        engine.add([1] * 9, asked)
    assert not engine.busy


def test_between_two_steps_the_model_is_as_it_was():
    model = small_model(dropout=0.5).train()
    engine = Engine(model)
    engine.add([1, 2], Sampling(max_tokens=20))
    engine.step()
    assert model.training
    model(prompts(2, 4)).sum().backward()  # its tensors are no inference tensors


def test_lower_precision_is_taken_when_asked_for():
    model, ids = small_model().eval(), prompts(2, 4).tolist()
    rows = collected(model, ids, GREEDY, autocast_dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert rows == [plain(model, row, GREEDY) for row in ids]


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
