"""Which source a sample of a mixture is from, and where it is there."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.data.batches import TrainStream
from myna.data.mixture import MOST_PARTS, Mixture, MixtureStream, Part, Source, pattern, whole_parts
from myna.data.shards import open_dataset

T = 32


def counts(sources, n):
    """(k, n) how many windows each source has had after 1, 2, ... k."""
    return np.cumsum(sources[:, None] == np.arange(n), axis=0)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_after_every_window_each_source_has_its_share_within_one(parts):
    """Within 1 - 1/(2n - 2), the least that is possible for all weights (Tijdeman)."""
    given_out = counts(pattern(parts), len(parts))
    due = np.arange(1, sum(parts) + 1)[:, None] * np.array(parts) / sum(parts)
    bound = 1 - 1 / max(1, 2 * len(parts) - 2)
    assert np.abs(given_out - due).max() <= bound + 1e-9
    assert given_out[-1].tolist() == parts


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (["0.7", "0.3"], [7, 3]),
        (["1", "2"], [1, 2]),
        (["1/3", "2/3"], [1, 2]),
        (["0", "5"], [0, 1]),
        (["1e-300", "1e300"], [1, MOST_PARTS]),
        (["9953989344", "1234567"], [249_969, 31]),
    ],
)
def test_weights_are_whole_parts(weights, parts):
    assert whole_parts(list(map(Fraction, weights))) == parts


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_any_weights_are_kept_to_a_millionth(weights):
    exact = [Fraction(repr(weight)) for weight in weights]
    parts = whole_parts(exact)
    assert sum(parts) <= MOST_PARTS + len(parts)
    for part, weight in zip(parts, exact, strict=True):
        assert abs(part / sum(parts) - weight / sum(exact)) < len(parts) / MOST_PARTS


@pytest.fixture(scope="module")
def streams(small_dataset):
    """Two streams of different lengths, of one dataset's splits."""
    opened = open_dataset(small_dataset, verify=False)
    return [TrainStream(split, T, seed=5) for split in (opened.train, opened.val)]


@pytest.fixture(scope="module")
def stream(streams):
    return MixtureStream([Part(name, one, n) for name, one, n in zip("ab", streams, (7, 3), strict=True)])


def test_a_sample_depends_on_its_number_alone(stream):
    """Batches of any size at any place are the same samples: what any world size and any resume sees."""
    whole = stream.batch(0, 250)
    for first, count in itertools.product((0, 1, 9, 10, 97), (1, 2, 7, 64)):
        for part, expected in zip(stream.batch(first, count), whole, strict=True):
            assert np.array_equal(part, expected[first : first + count])


def test_each_source_gives_its_own_samples_in_its_own_order(stream, streams):
    sources, places = stream.placed(0, 3000)
    inputs, targets = stream.batch(0, 3000)
    for number, own in enumerate(streams):
        rows = sources == number
        assert places[rows].tolist() == list(range(rows.sum()))
        expected = own.batch(0, int(rows.sum()))
        assert np.array_equal(inputs[rows], expected[0])
        assert np.array_equal(targets[rows], expected[1])
    due = np.arange(1, 3001)[:, None] * np.array([0.7, 0.3])
    assert np.abs(counts(sources, 2) - due).max() <= 0.5 + 1e-9


def test_far_ahead_it_is_the_same(stream):
    """After 10^12 windows, at once."""
    far = 10**12
    sources, places = stream.placed(far, 10)
    assert np.array_equal(sources, stream.placed(0, 10)[0])
    assert places[sources == 0][0] == 7 * far // 10
    assert places[sources == 1][0] == 3 * far // 10


def test_an_epoch_and_targets_are_those_of_all(stream, streams):
    assert stream.windows_per_epoch == sum(one.windows_per_epoch for one in streams)
    assert stream.n_targets(3, 40) == 40 * T


def test_what_identifies_it(small_dataset):
    opened = open_dataset(small_dataset, verify=False)
    one = Mixture((Source("a", opened, 1),))
    assert one.identity == opened.identity
    both = [Mixture((Source("a", opened, n), Source("b", opened, 10 - n))) for n in (3, 4)]
    assert len({one.identity, *(mixture.identity for mixture in both)}) == 3
    renamed = Mixture((Source("c", opened, 3), Source("d", opened, 7)))
    assert renamed.identity == both[0].identity
    assert str(both[0]) == "a:0.3 b:0.7"
