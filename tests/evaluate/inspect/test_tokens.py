"""Tokens that training never saw are found, and the ranking says what it compared them with."""

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.evaluate.inspect.tokens import (
    NOT_IN_UTF8,
    cosine_distance,
    nearest,
    rank_by_training,
    reason,
    token_embeddings,
    unwritable,
)
from myna.train.optimizers.adamw import AdamWOptions, build

T, BATCH, STEPS = 32, 16, 60
HIDDEN = 20


def text_without(hidden: set[int]) -> list[int]:
    """Ids of a text in which each byte that UTF-8 has occurs, but for some in ASCII; documents begin with 256."""
    draw = np.random.default_rng(0)
    ascii = [c for c in range(128) if c not in hidden]
    weights = 1 / np.arange(1, len(ascii) + 1)
    common = draw.choice(ascii, 40_000, p=weights / weights.sum())
    beyond = [
        *range(0x80, 0x800),
        *range(0x800, 0xD800, 31),
        *range(0xE000, 0x10000, 31),
        *range(0x10000, 0x110000, 997),
    ]
    rare = draw.permutation(beyond)
    characters = np.where(np.arange(len(common)) % 6 == 5, np.resize(rare, len(common)), common)
    ids: list[int] = []
    for start in range(0, len(characters), 200):
        ids += [256, *"".join(map(chr, characters[start : start + 200])).encode()]
    return ids


def chain(known: list[int]) -> list[int]:
    """A stream of ids, each of which has favourites to follow it, as in a language; all of them occur."""
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(1, len(known) + 1)
    fresh = draw.choice(draw.permutation(known), 40_000, p=weights / weights.sum()).tolist()
    follows = dict(zip(known, draw.choice(known, (len(known), 4)).tolist(), strict=True))
    ids = list(known)
    for one, choice in zip(fresh, draw.integers(0, 6, len(fresh)).tolist(), strict=True):
        ids.append(follows[ids[-1]][choice] if choice < 4 else one)
    return ids


def trained(ids: list[int]) -> GPT:
    """A small GPT after a few steps of our optimizer, whose decay acts on embeddings too."""
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=T, vocab_size=257))
    optimizer = build(network, 3e-3, AdamWOptions())
    stream, draw = torch.tensor(ids), torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        starts = torch.randint(len(stream) - T, (BATCH, 1), generator=draw)
        window = stream[starts + torch.arange(T + 1)]
        (network.nats(network.hidden(window[:, :-1]), window[:, 1:]) / (BATCH * T)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()


def found(network: GPT, hidden: set[int]) -> int:
    return len(hidden & set(rank_by_training(network, Tokenizer.bytes()).first(25)))


@pytest.fixture(scope="module")
def hidden() -> set[int]:
    return set(np.random.default_rng(1).choice(128, HIDDEN, replace=False).tolist())


@pytest.fixture(scope="module")
def network(hidden) -> GPT:
    ids = text_without(hidden)
    assert set(range(257)) - set(ids) == hidden | NOT_IN_UTF8
    return trained(ids)


def test_hidden_tokens_are_found_by_their_distance(network, hidden):
    ranking = rank_by_training(network, Tokenizer.bytes())
    assert "cosine" in ranking.indicator
    assert set(ranking.reference) == NOT_IN_UTF8
    assert found(network, hidden) >= 18
    assert not set(ranking.reference) & set(ranking.first(257))
    near = {id for id in ranking.first(257) if ranking.never_seen(id)}
    assert len(hidden & near) >= 18
    assert len(near) == ranking.n_never_seen() <= 25


def test_without_a_reference_the_mean_logit_finds_them(hidden):
    # Every id occurs but the hidden ones, those too that no text has: the reference was trained on.
    network = trained(chain([id for id in range(257) if id not in hidden]))
    ranking = rank_by_training(network, Tokenizer.bytes())
    assert ranking.indicator == "mean logit after each of 257 single ids"
    assert "was trained on them" in ranking.why
    assert (ranking.reference, ranking.near, ranking.n_never_seen()) == ((), None, 0)
    assert found(network, hidden) >= 18


def test_most_of_the_vocabulary_may_be_unseen():
    draw = torch.Generator().manual_seed(0)
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=32, block_size=8, vocab_size=257))
    rows = torch.randn(257, 32, generator=draw)
    unseen = torch.arange(257) % 16 != 0
    rows[unseen] = rows[1] + 0.1 * rows[unseen]
    rows[sorted(NOT_IN_UTF8)] = rows[1] + 0.1 * torch.randn(len(NOT_IN_UTF8), 32, generator=draw)
    network.wte.weight.data[:257] = rows
    ranking = rank_by_training(network, Tokenizer.bytes())
    assert set(ranking.reference) == NOT_IN_UTF8
    assert ranking.n_never_seen() > 200
    assert not any(ranking.never_seen(id) for id in range(0, 240, 16) if id not in NOT_IN_UTF8)


def test_a_model_that_learned_nothing_has_no_reference():
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=32, block_size=8, vocab_size=257))
    assert "learned too little" in rank_by_training(network, Tokenizer.bytes()).why
    small = Tokenizer.train(["aa bb aa bb"], vocab_size=259)
    assert len(unwritable(small, 260)) == len(NOT_IN_UTF8) + 1  # 259 has no token
    wordpiece = WithoutBytes()
    assert unwritable(wordpiece, 5) == []
    assert "none" in rank_by_training(network, wordpiece).why


class WithoutBytes:
    """A tokenizer of words, which has no token for a byte."""

    def token_bytes(self, id: int) -> bytes:
        return f"word{id}".encode()


def test_reasons():
    tok = Tokenizer.train(["the cat the cat the cat"], vocab_size=262)
    assert reason(tok, tok.eot) == "special token"
    assert reason(tok, 0xC0) == "no text has it: a byte that UTF-8 does not use"
    assert reason(tok, 0x80) == "byte fragment: part of a character"
    assert reason(tok, ord("x")) == "never or hardly seen, though text can have it"
    assert reason(tok, 300) == "no token has this id"
    table = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"bc": 257, b"abc": 258}
    ranks = Tokenizer.from_ranks(table, "gpt2")
    assert reason(ranks, 258) == "never or hardly seen, though text can have it"
    table = {bytes([byte]): byte for byte in range(256)} | {b" a": 256, b"a b": 257}
    apart = Tokenizer.from_ranks(table, "gpt2")  # the pattern cuts before the space
    assert reason(apart, 257) == "unreachable: the tokenizer writes it as 97 32 98"


def test_nearest_is_by_angle_and_leaves_out_itself():
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=8, vocab_size=6))
    rows = torch.tensor(
        [[1.0, 0, 0, 0], [5, 5, 0, 0], [0.1, 0, 9, 0], [-1, 0, 0, 0], [2, 0.1, 0, 0], [0, 1, 0, 0]]
    )
    network.wte.weight.data[:6] = rows
    assert token_embeddings(network).shape == (6, 4)  # without padding
    neighbours = nearest(network, 0, 3)
    assert [one.id for one in neighbours] == [4, 1, 2]
    assert neighbours[1].cosine == pytest.approx(2**-0.5)
    assert len(nearest(network, 0, 99)) == 5
    assert float(cosine_distance(rows[3:4], rows[0])[0]) == pytest.approx(2)
