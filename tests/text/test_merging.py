"""The trainer on arrays gives the reference's merges, one by one."""

from collections.abc import Iterator
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.text import bpe, merging
from myna.text.counting import count_pretokens
from myna.text.patterns import GPT2

words = st.dictionaries(
    st.one_of(
        st.text("ab", min_size=1, max_size=20),
        st.text("abcd \n", min_size=1, max_size=12),
        st.sampled_from("ax").map(lambda c: c * 37),
    ).map(str.encode),
    st.integers(1, 6),
    max_size=20,
)


@pytest.fixture(params=[0, 3, merging.FEW], scope="module", autouse=True)
def few(request: pytest.FixtureRequest) -> Iterator[int]:
    """Merges in array operations alone, in both ways, and place by place alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FEW", request.param)
        yield request.param


@settings(max_examples=200)
@given(words, st.integers(0, 60))
def test_equals_the_reference(counts: dict[bytes, int], n_merges: int) -> None:
    assert merging.train(counts, n_merges) == bpe.train(counts, n_merges)


def test_equals_the_reference_on_text() -> None:
    counts = count_pretokens(list(topics.values())[:30], GPT2)
    assert merging.train(counts, 1500) == bpe.train(counts, 1500)


def test_counts_of_pairs_stay_exact() -> None:
    counts = {b"abababab": 3, b"aabb": 5, b"bababa": 7}
    corpus = merging.Corpus(counts)
    for new_id, (left, right) in enumerate(bpe.train(counts, 6), start=256):
        corpus.merge(left << 32 | right, new_id)
        live: dict[int, int] = {}
        for place in np.flatnonzero(corpus.tokens >= 0).tolist():
            after = int(corpus.tokens[corpus.after[place]])
            if after >= 0:
                key = int(corpus.tokens[place]) << 32 | after
                live[key] = live.get(key, 0) + int(corpus.weights[place])
        assert corpus.counts == live


def test_on_merge_is_told_of_each() -> None:
    seen: list[int] = []
    merging.train({b"abcd": 1}, 3, seen.append)
    assert seen == [1, 2, 3]


def test_counts_beyond_32_bits() -> None:
    assert merging.train({b"ab": 2**40, b"cd": 2**40 + 1}, 1) == [(99, 100)]
