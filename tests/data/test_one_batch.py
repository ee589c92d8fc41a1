"""One batch without end, and the loss that no model can go below on it."""

import itertools
from collections import Counter

import numpy as np
import pytest

from myna.data.batches import TrainStream, micro_batches
from myna.data.one_batch import OneBatch, least_loss
from myna.data.shards import open_dataset


@pytest.fixture
def stream(small_dataset):
    return TrainStream(open_dataset(small_dataset).train, 32, seed=5)


def test_each_step_takes_the_first_steps_samples(stream):
    inputs, targets = stream.batch(0, 8)
    for world_size, rank in ((1, 0), (2, 0), (2, 1)):
        batches = micro_batches(OneBatch(stream, 8), 16, 8, 4, rank, world_size)
        own = slice(rank * 4, rank * 4 + 8 // world_size)
        for _ in range(3):
            step = list(itertools.islice(batches, 2 // world_size))
            np.testing.assert_array_equal(np.concatenate([x for x, _ in step]), inputs[own])
            np.testing.assert_array_equal(np.concatenate([y for _, y in step]), targets[own])


def test_samples_that_go_over_the_end_begin_again(stream):
    batch = OneBatch(stream, 3)
    first, _ = stream.batch(0, 3)
    np.testing.assert_array_equal(batch.batch(4, 7)[0], first[[1, 2, 0, 1, 2, 0, 1]])
    assert batch.n_targets(4, 7) == 7 * 32


def test_the_least_loss_is_the_entropy_of_what_follows_each_beginning():
    ids = np.random.default_rng(0).integers(0, 2, size=(40, 7))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    begins, goes_on = Counter(), Counter()
    for row in ids.tolist():
        for t in range(1, 7):
            begins[tuple(row[:t])] += 1
            goes_on[tuple(row[: t + 1])] += 1
    nats = -sum(n * np.log(n / begins[row[:-1]]) for row, n in goes_on.items())
    assert least_loss(inputs, targets) == pytest.approx(nats / targets.size)
    assert least_loss(inputs[:1], targets[:1]) == 0
    alike = np.array([[1, 2], [1, 2]])
    assert least_loss(alike, alike) == 0  # rows that are equal to the end can be known
