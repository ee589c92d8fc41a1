"""The batch of every step, against a walk of single steps."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.data.ramp import Ramp
from myna.errors import UsageError

RAMPS = st.builds(
    lambda unit, times, over: Ramp(unit, unit * times, over),
    st.integers(1, 24),
    st.integers(1, 12),
    st.integers(0, 3000),
)


def walk(ramp, steps):
    """The batches of single steps."""
    sizes, consumed = [], 0
    for _ in range(steps):
        sizes.append(ramp.at(consumed))
        consumed += sizes[-1]
    return sizes


@settings(max_examples=150, deadline=None)
@given(RAMPS, st.integers(1, 300))
def test_batches_grow_along_a_line_in_multiples_of_the_first(ramp, steps):
    sizes = walk(ramp, steps)
    assert sizes == sorted(sizes)
    assert sizes[0] == ramp.unit
    assert all(size % ramp.unit == 0 and size <= ramp.full for size in sizes)
    consumed = 0
    for size in sizes:
        if consumed >= ramp.over:
            assert size == ramp.full
        else:  # never above the line, and less than a unit below it
            line = ramp.start + (ramp.full - ramp.start) * consumed / ramp.over
            assert line - ramp.start < size <= line + 1e-9
        consumed += size


@settings(max_examples=150, deadline=None)
@given(RAMPS, st.integers(0, 200), st.integers(0, 200))
def test_sums_are_those_of_single_steps(ramp, before, steps):
    sizes = walk(ramp, before + steps)
    consumed = sum(sizes[:before])
    assert ramp.after(before) == consumed
    assert ramp.after(steps, consumed) == sum(sizes)
    growing = [size for size, some in ramp.stages() for _ in range(some)]
    assert sizes[: len(growing)] == growing[: len(sizes)]
    assert all(size < ramp.full for size in growing)
    assert set(sizes[len(growing) :]) <= {ramp.full}


@settings(max_examples=150, deadline=None)
@given(RAMPS, st.integers(1, 5000))
def test_the_fewest_steps_that_take_so_many_samples(ramp, samples):
    steps = ramp.steps_to(samples)
    assert ramp.after(steps - 1) < samples <= ramp.after(steps)


def test_gpt3s_ramp_takes_the_steps_of_its_line():
    """Unrounded they are over / (full - start) * ln(full / start). Rounding down takes up to a fifth more."""
    ramp = Ramp(32, 512, 4_000_000_000 // 1024)
    line = ramp.over / (ramp.full - ramp.start) * math.log(ramp.full / ramp.start)
    assert line < sum(steps for _, steps in ramp.stages()) < 1.2 * line


@pytest.mark.parametrize(("start", "full", "over"), [(33, 512, 10), (0, 8, 0), (2, 8, -1), (16, 8, 1)])
def test_what_does_not_divide_is_refused(start, full, over):
    with pytest.raises(UsageError, match="the first must divide the last"):
        Ramp(start, full, over)
