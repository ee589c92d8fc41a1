"""Batches: each window once an epoch, each id a target, the same for any world size; states stay one integer."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from myna.data.batches import TrainStream, micro_batches, rank_share, val_windows
from myna.data.permutation import ROUNDS, permute
from myna.data.shards import NPY_HEADER_BYTES, npy_header
from myna.data.split import Shard, Split
from myna.errors import DataError, UsageError

PRIMES = (1009, 499, 757)


def split_of(folder: Path, sizes: tuple[int, ...]) -> Split:
    """A split whose ids are their own positions, so that a window shows where it lies."""
    shards, at = [], 0
    for number, size in enumerate(sizes):
        path = folder / f"train_{number:06d}.npy"
        path.write_bytes(npy_header(np.dtype("<u2"), size) + np.arange(at, at + size, dtype="<u2").tobytes())
        shards.append(Shard(path, size, NPY_HEADER_BYTES, np.dtype("<u2")))
        at += size
    return Split("test", shards, at)


@pytest.fixture(scope="module")
def primes(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return split_of(tmp_path_factory.mktemp("primes"), PRIMES)


@given(n=st.integers(1, 5000), seed=st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_permutation_is_one_to_one(n: int, seed: int) -> None:
    keys = np.random.default_rng(seed).integers(0, 2**63, ROUNDS).astype(np.uint64)
    assert np.array_equal(np.sort(permute(np.arange(n), n, keys)), np.arange(n))


def test_permutation_scatters_neighbours() -> None:
    """Items that were neighbours end up as far apart as in a random order: n/3 on average."""
    n = 100_000
    keys = np.random.default_rng(0).integers(0, 2**63, ROUNDS).astype(np.uint64)
    order = permute(np.arange(n), n, keys)
    assert abs(np.abs(np.diff(order)).mean() / (n / 3) - 1) < 0.02
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.02
    other = permute(np.arange(n), n, keys + np.uint64(1))
    assert (order == other).mean() < 0.001


@pytest.mark.parametrize("sequence_length", [1, 7, 64, 2264])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_has_each_window_and_each_target_once(
    primes: Split, sequence_length: int, epoch: int
) -> None:
    stream = TrainStream(primes, sequence_length, seed=5)
    n = stream.windows_per_epoch
    starts = stream.windows(epoch * n, n)
    assert len(set(starts.tolist())) == n
    inputs, targets = stream.batch(epoch * n, n)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert np.array_equal((inputs + 1) % sum(PRIMES), targets)  # the ring: after the last id comes the first
    seen = Counter(targets.ravel().tolist())
    assert set(seen) == set(range(sum(PRIMES)))
    twice = [id_ for id_, times in seen.items() if times > 1]
    assert len(twice) < sequence_length
    assert max(seen.values()) <= 2


def test_epochs_and_seeds_differ_in_start_and_order(primes: Split) -> None:
    n = TrainStream(primes, 16, seed=0).windows_per_epoch
    first, second = (TrainStream(primes, 16, seed=0).windows(e * n, n) for e in (0, 1))
    other = TrainStream(primes, 16, seed=1).windows(0, n)
    assert not np.array_equal(first, other)
    assert set(first.tolist()) != set(second.tolist())  # another start: other borders between windows


@given(
    step=st.integers(0, 2000),
    world_size=st.sampled_from([1, 2, 3, 8]),
    micro=st.sampled_from([1, 2, 3, 4, 6, 12, 24]),
    seed=st.integers(-5, 5),
)
@settings(max_examples=60, deadline=None)
def test_global_batches_are_the_same_for_all_ranks_and_micro_batches(
    primes: Split, step: int, world_size: int, micro: int, seed: int
) -> None:
    global_samples = 24
    assume(global_samples // world_size % micro == 0)
    stream = TrainStream(primes, 32, seed)
    whole = stream.batch(step * global_samples, global_samples)[1]
    rows = []
    for rank in range(world_size):
        parts = micro_batches(stream, step * global_samples, global_samples, micro, rank, world_size)
        rows += [next(parts)[1] for _ in range(global_samples // world_size // micro)]
    assert np.array_equal(np.concatenate(rows), whole)


def test_sequential_order_goes_through_the_stream_from_its_first_id(primes: Split) -> None:
    T, total = 32, sum(PRIMES)
    stream = TrainStream(primes, T, seed=5, order="sequential")
    n = stream.windows_per_epoch
    assert np.array_equal(stream.windows(0, n), np.arange(n) * T)
    assert np.array_equal(
        stream.windows(n - 2, 4), [(n - 2) * T, (n - 1) * T, 0, T]
    )  # the next epoch begins anew
    inputs, targets = stream.batch(0, n)
    assert np.array_equal(inputs.flatten()[:total], np.arange(total))
    assert np.array_equal(targets[:, :-1], inputs[:, 1:])
    assert Counter(targets.flatten().tolist()) == {
        id: 1 + (id <= n * T - total and id > 0) for id in range(total)
    }


def test_a_sample_does_not_depend_on_the_others(primes: Split) -> None:
    stream = TrainStream(primes, 32, seed=3)
    together = stream.windows(0, 500)
    alone = [TrainStream(primes, 32, seed=3).window(k) for k in (499, 0, 77, 71, 70)]
    assert alone == together[[499, 0, 77, 71, 70]].tolist()


def test_steps_that_do_not_divide_are_refused(primes: Split) -> None:
    stream = TrainStream(primes, 32, seed=3)
    with pytest.raises(UsageError, match="does not divide among 3 ranks"):
        rank_share(0, 8, 0, 3)
    with pytest.raises(UsageError, match="micro-batches of 3"):
        next(micro_batches(stream, 0, 8, 3))


def test_too_few_ids_for_a_window(tmp_path: Path) -> None:
    split = split_of(tmp_path, (64,))
    TrainStream(split, 63, seed=0)
    with pytest.raises(DataError, match="64 ids, and one window needs 65"):
        TrainStream(split, 64, seed=0)


def test_validation_scores_each_target_once_in_order(primes: Split) -> None:
    targets = np.concatenate([t for _, t in val_windows(primes, 100)])
    assert np.array_equal(targets, np.arange(1, sum(PRIMES)))
    limited = [t for _, t in val_windows(primes, 100, limit=250)]
    assert [len(t) for t in limited] == [100, 100, 50]
    shared = [t[0] for rank in range(3) for _, t in val_windows(primes, 100, rank=rank, world_size=3)]
    assert sorted(shared) == list(range(1, sum(PRIMES), 100))
    assert list(val_windows(Split("empty", [], 10), 100)) == []
