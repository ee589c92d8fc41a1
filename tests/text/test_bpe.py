"""The reference holds itself: what it trains decodes, and its rules are those it states."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from myna.text import bpe

words = st.dictionaries(
    st.text("abc ", min_size=1, max_size=12).map(str.encode), st.integers(1, 9), max_size=12
)


def test_ties_go_to_the_smallest_left_then_right_id() -> None:
    assert bpe.train({b"cd": 2, b"ab": 2, b"ax": 2}, 3) == [(97, 98), (97, 120), (99, 100)]


def test_overlapping_pairs_count_and_merge_from_the_left() -> None:
    # "aaa" holds (a, a) twice: with weight 2 that is 4, more than the 3 of (b, c).
    assert bpe.train({b"aaa": 2, b"bc": 3}, 2) == [(97, 97), (98, 99)]
    assert bpe.encode(b"aaaaa", [(97, 97)]) == [256, 256, 97]


def test_training_stops_when_no_pair_is_left() -> None:
    assert bpe.train({b"ab": 1, b"c": 5}, 100) == [(97, 98)]
    assert bpe.train({}, 3) == []


def test_counts_do_not_overflow_64_bits() -> None:
    huge = 2**70
    assert bpe.train({b"ab": huge, b"cd": huge + 1}, 2) == [(99, 100), (97, 98)]


@given(words, st.integers(0, 30), st.text("abc ", max_size=30))
def test_decode_undoes_encode(counts: dict[bytes, int], n_merges: int, text: str) -> None:
    merges = bpe.train(counts, n_merges)
    assert bpe.decode(bpe.encode(text.encode(), merges), merges) == text.encode()


@given(words, st.integers(1, 30))
def test_parts_recovers_the_pair_of_each_merge(counts: dict[bytes, int], n_merges: int) -> None:
    merges = bpe.train(counts, n_merges)
    table = bpe.token_bytes(merges)
    assert len(set(table)) == len(table)
    ranks = {token: i for i, token in enumerate(table)}
    for i, (left, right) in enumerate(merges):
        assert bpe.parts(table[256 + i], ranks, below=256 + i) == [table[left], table[right]]


def test_merge_in_place_reports_what_changed() -> None:
    ids = list(b"abab")
    before = Counter(pairwise(ids))
    changes = bpe.merge_in_place(ids, (97, 98), 256)
    assert ids == [256, 256]
    for pair, difference in changes:
        before[pair] += difference
    assert {pair: n for pair, n in before.items() if n} == {(256, 256): 1}
