"""Scores against the definition: a whole row alone through the network, all logits, a softmax."""

import random
import sys
from pathlib import Path

import pytest
import torch

from myna.errors import ModelError
from myna.evaluate import continuations, trees
from myna.evaluate.continuations import Question, Score, n_cut, question, question_scores
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.network import network_kind

V, BLOCK = 31, 24
EOT = V - 1


@pytest.fixture(scope="module")
def model() -> GPT:
    """Loud weights: some ids are much likelier than others, so that greedy is not rare."""
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, vocab_size=V)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6)
    return network


@pytest.fixture(autouse=True)
def sharing_pays(monkeypatch) -> None:
    """At the width of these networks rows would hardly ever be cheaper together."""
    monkeypatch.setattr(trees, "ATTENTION_FACTOR", 0.1)


@torch.no_grad()
def by_definition(network, context, ending) -> Score:
    ids = torch.tensor([*(context or [EOT]), *ending])[-network.config.block_size - 1 :]
    n = min(len(ending), len(ids) - 1)
    log_p = network(ids[None, :-1])[0].log_softmax(dim=1)[-n:]  # (n, V)
    costs = -log_p.gather(1, ids[-n:, None]).double()
    return Score(tuple(costs.flatten().tolist()), bool((log_p.argmax(dim=1) == ids[-n:]).all()))


def drawn_pairs(draw: random.Random, network) -> list[tuple[list[int], list[int]]]:
    """Rows of one question: endings after a context, contexts before an ending, or anything; some greedy."""

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(3) for _ in range(draw.randint(low, high))]

    kind = draw.choice(["endings", "contexts", "anything", "one", "greedy", "long"])
    rows = draw.randint(1, 6)
    context, ending = ids(0, 12), ids(1, 7)
    if kind == "endings":
        return [(context, draw.choice([ids(1, 7), ending])) for _ in range(rows)]
    if kind == "contexts":
        return [(context + ids(0, 5), ending) for _ in range(rows)]
    if kind == "anything":
        return [(ids(0, 12), ids(1, 7)) for _ in range(rows)]
    if kind == "long":
        return [(ids(20, 60), ids(1, 30)) for _ in range(rows)]
    if kind == "greedy":
        ending, now = [], context or [EOT]
        for _ in range(draw.randint(1, 4)):
            with torch.no_grad():
                ending.append(int(network(torch.tensor([now + ending]))[0, -1].argmax()))
    return [(context, ending)]


def drawn_questions(network, count: int, seed: int = 0):
    draw = random.Random(seed)
    pairs = [drawn_pairs(draw, network) for _ in range(count)]
    return pairs, [question(rows, block_size=network.config.block_size, eot=EOT) for rows in pairs]


def all_scores(network, questions, **how) -> list[tuple[Score, ...]]:
    found: dict[int, tuple[Score, ...]] = {}
    for batch in question_scores(network, questions, **how):
        assert not found.keys() & batch.keys()
        found |= batch
    assert sorted(found) == list(range(len(questions)))
    return [found[number] for number in range(len(questions))]


def assert_same(found, expected) -> None:
    for row, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert [(s.tokens, s.greedy) for s in a] == [(s.tokens, s.greedy) for s in b], row
        assert [s.nats for s in a] == pytest.approx([s.nats for s in b], rel=1e-5, abs=1e-5), row
        for one, other in zip(a, b, strict=True):
            assert one.token_nats == pytest.approx(other.token_nats, rel=1e-5, abs=1e-5), row


def test_scores_are_those_of_the_definition(model):
    pairs, questions = drawn_questions(model, 200)
    expected = [tuple(by_definition(model, *pair) for pair in rows) for rows in pairs]
    assert_same(all_scores(model, questions), expected)
    greedy = [score.greedy for scores in expected for score in scores]
    assert sum(greedy) > 10  # or the test shows nothing
    assert n_cut(questions) == sum(
        max(len(context or [EOT]) + len(ending) for context, ending in rows) > BLOCK + 1 for rows in pairs
    )
    assert n_cut(questions) > 20


def test_neither_the_batch_nor_the_ranks_change_a_score(model):
    _, questions = drawn_questions(model, 64, seed=1)
    whole = all_scores(model, questions)
    for batch_questions in (1, 3, 16, 64):
        assert_same(all_scores(model, questions, batch_questions=batch_questions), whole)
    for batch_positions in (1, 100):
        assert_same(all_scores(model, questions, batch_positions=batch_positions), whole)
    parts: dict[int, tuple[Score, ...]] = {}
    for rank in range(2):
        for batch in question_scores(model, questions, rank=rank, world_size=2, batch_questions=5):
            parts |= batch
    assert_same([parts[number] for number in range(64)], whole)


def test_no_batch_is_larger_than_allowed(model, monkeypatch):
    _, questions = drawn_questions(model, 40, seed=2)
    shots = [5] * 15
    quiz = [question([([*shots, n], [n])], block_size=BLOCK, eot=EOT) for n in range(9)]  # they share a tree
    shapes = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, *more: shapes.append(ids.shape) or hidden(ids, *more))
    batches = list(question_scores(model, questions + quiz, batch_questions=3, batch_positions=120))
    assert max(map(len, batches)) == 3
    assert all(rows * T <= 120 for rows, T in shapes)


def test_the_head_goes_in_pieces(model, monkeypatch):
    """Each with the rows that its positions predict, and no other."""
    _, questions = drawn_questions(model, 20, seed=5)
    whole = all_scores(model, questions)
    monkeypatch.setattr(continuations, "LOGIT_BYTES", 4 * V * 3)
    assert_same(all_scores(model, questions), whole)


def test_softmax_goes_in_smaller_pieces(model, monkeypatch):
    questions = [question([([1, 2, n % V], [3, 4])], block_size=BLOCK, eot=EOT) for n in range(40)]
    wanted = [scores for batch in question_scores(model, questions) for scores in sorted(batch.items())]
    monkeypatch.setattr(continuations, "CPU_SOFTMAX_BYTES", 4 * V * 3)  # three rows
    found = [scores for batch in question_scores(model, questions) for scores in sorted(batch.items())]
    assert found == wanted


class CastCount(torch.utils._python_dispatch.TorchDispatchMode):
    """How often a tensor of some shape is cast."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._to_copy.default and args[0].shape == self.shape
        return function(*args, **(kwargs or {}))


def test_a_weight_is_cast_once_for_all_batches_and_anew_when_it_has_changed():
    torch.manual_seed(1)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=BLOCK, vocab_size=V))
    questions = [question([([n], [3, 4])], block_size=BLOCK, eot=EOT) for n in range(4)]

    def scores():
        how = {"batch_questions": 1, "autocast_dtype": torch.bfloat16}
        return [scores for batch in question_scores(model, questions, **how) for scores in batch.values()]

    with CastCount(model.h[0].mlp.c_fc.weight.shape) as casts:
        before = scores()
    assert casts.count == 1
    with torch.no_grad():
        model.h[0].mlp.c_fc.weight.mul_(5)
    assert scores() != before


def test_what_rows_have_in_common_is_computed_once(model, monkeypatch):
    """Within a question, and from one question to the next."""
    computed, predicted = [], []
    hidden, logits = model.hidden, model.logits
    monkeypatch.setattr(
        model, "hidden", lambda ids, *more: computed.append(ids.numel()) or hidden(ids, *more)
    )
    monkeypatch.setattr(model, "logits", lambda x: predicted.append(len(x)) or logits(x))
    shots = list(range(12))
    letters = question([(shots, [n]) for n in range(4)], block_size=BLOCK, eot=EOT)
    all_scores(model, [letters])
    assert (computed, predicted) == ([12], [1])
    computed.clear()
    predicted.clear()
    some = [
        question([([*shots, 20 + n], [n, m]) for m in range(3)], block_size=BLOCK, eot=EOT) for n in range(4)
    ]
    all_scores(model, some)
    # The shots; of each question the last id of the context and the first of the ending.
    assert computed == [12 + 4 * 2]
    assert predicted == [4 * 2]


def test_questions_that_share_are_in_one_batch(model, monkeypatch):
    """Though others are as long as they are."""
    computed = []
    hidden = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda ids, *more: computed.append(ids.numel()) or hidden(ids, *more)
    )
    quizzes = [
        question([([shot] * 12 + [20 + n] * (n + 1), [n])], block_size=BLOCK, eot=EOT)
        for n in range(4)
        for shot in (1, 2)
    ]
    all_scores(model, quizzes, batch_questions=4)
    assert computed == [12 + 1 + 2 + 3 + 4] * 2


def test_equal_rows_cost_exactly_the_same(model):
    """So that equal endings never win over each other by a rounding."""
    draw = random.Random(3)
    for _ in range(20):
        context, ending = [draw.randrange(V) for _ in range(9)], [draw.randrange(V) for _ in range(5)]
        other = [draw.randrange(V) for _ in range(7)]
        rows = [(context, ending), (context, other), (context, ending)]
        ((first, _, third),) = all_scores(model, [question(rows, block_size=BLOCK, eot=EOT)])
        assert first == third


def test_a_tree_may_be_longer_than_the_window(model):
    """No path of it is."""
    pairs = [([5, 6, 7, 8, 9, 10, 11, 12], [n, n, *range(10)]) for n in range(6)]
    one = question(pairs, block_size=BLOCK, eot=EOT)
    ((*found,),) = all_scores(model, [one])
    assert_same([found], [[by_definition(model, *pair) for pair in pairs]])


def test_any_network_that_has_a_cache_can_be_scored():
    path = str(Path(__file__).parents[1] / "seams")
    sys.path.insert(0, path)
    try:
        import rotary
    finally:
        sys.path.remove(path)
    kind = network_kind("rotary")
    torch.manual_seed(0)
    network = rotary.Rotary(
        kind.config(
            n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, vocab_size=V, options=rotary.RotaryOptions()
        )
    ).eval()
    pairs, questions = drawn_questions(network, 40, seed=4)
    expected = [tuple(by_definition(network, *pair) for pair in rows) for rows in pairs]
    assert_same(all_scores(network, questions), expected)


def test_a_row_needs_an_ending():
    for pairs in ([], [([1], [])], [([1], [2]), ([1], [])]):
        with pytest.raises(ValueError, match="an ending"):
            question(pairs, block_size=8, eot=0)


@pytest.mark.parametrize("rows", [((V, 1),), ((1, V),), ((1, -1),)])
def test_an_id_outside_the_vocabulary_is_refused(model, rows):
    with pytest.raises(ModelError, match="outside the vocabulary"):
        list(question_scores(model, [Question(rows, (1,))]))
