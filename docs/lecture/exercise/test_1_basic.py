"""Step 1 against small examples, and against Myna."""

import bpe_1_basic as basic
import pytest

from myna.text import bpe

DATA = "the theory of the thing: then there, 안녕 안녕".encode()


def test_pairs_are_counted_at_every_place():
    assert basic.count_pairs([1, 1, 1, 2]) == {(1, 1): 2, (1, 2): 1}


@pytest.mark.parametrize(
    ("ids", "merged"), [([1, 2, 3, 1, 2], [9, 3, 9]), ([1, 1, 2], [1, 9]), ([2, 1], [2, 1]), ([], [])]
)
def test_a_pair_becomes_one_id(ids, merged):
    assert basic.merge(ids, (1, 2), 9) == merged


def test_a_merge_goes_from_left_to_right():
    assert basic.merge([1, 1, 1], (1, 1), 9) == [9, 1]


def test_ties_go_to_the_smallest_ids():
    assert basic.most_frequent(basic.count_pairs([5, 6, 3, 9, 3, 4])) == (3, 4)


def test_training_finds_mynas_merges():
    assert basic.train(DATA, 12) == bpe.train({DATA: 1}, 12)


def test_encoding_gives_mynas_ids():
    merges = bpe.train({DATA: 1}, 12)
    for data in (DATA, b"the other thing", b"", bytes(range(256))):
        assert basic.encode(data, merges) == bpe.encode(data, merges)


def test_decoding_gives_the_bytes_back():
    merges = bpe.train({DATA: 1}, 12)
    assert basic.decode(bpe.encode(DATA, merges), merges) == DATA
