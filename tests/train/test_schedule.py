import pytest

from myna.train.schedule import learning_rate

SHAPE = {"peak": 6e-4, "final_fraction": 0.1, "warmup_steps": 715, "decay_steps": 19073}


def test_the_lectures_curve():
    assert learning_rate(0, **SHAPE) == pytest.approx(6e-4 / 715)
    assert learning_rate(714, **SHAPE) == pytest.approx(6e-4)
    assert learning_rate(715, **SHAPE) == pytest.approx(6e-4)
    assert learning_rate((715 + 19072) // 2, **SHAPE) == pytest.approx(3.3e-4, rel=1e-3)
    assert learning_rate(19072, **SHAPE) == pytest.approx(6e-5)


def test_it_rises_then_falls():
    rates = [learning_rate(step, **SHAPE) for step in range(0, 19073, 13)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_fewer_steps_than_warmup_is_legal(steps):
    shape = SHAPE | {"decay_steps": steps}
    assert [learning_rate(s, **shape) for s in range(steps)] == [6e-4 * (s + 1) / 715 for s in range(steps)]


def test_no_warmup():
    assert learning_rate(0, peak=1.0, final_fraction=0.0, warmup_steps=0, decay_steps=1) == 1.0


LINE = {"peak": 2.0, "final_fraction": 0.0, "warmup_steps": 0, "decay": "linear"}


@pytest.mark.parametrize("warmup", [0, 30, 500])
def test_a_rate_that_is_constant_and_then_falls_along_a_line(warmup):
    shape = LINE | {"warmup_steps": warmup, "decay_steps": 1000, "constant_fraction": 0.3}
    rates = [learning_rate(step, **shape) for step in range(1001)]
    begin = max(300, warmup)
    assert rates[warmup : begin + 1] == [2.0] * (begin + 1 - warmup)
    falls = [a - b for a, b in zip(rates[begin:999], rates[begin + 1 : 1000], strict=True)]
    assert falls == pytest.approx([2.0 / (999 - begin)] * (999 - begin))
    assert rates[999:] == [0.0, 0.0]


def test_a_rate_that_is_constant_to_the_end():
    shape = LINE | {"decay_steps": 10, "constant_fraction": 1.0}
    assert [learning_rate(step, **shape) for step in range(10)] == [2.0] * 10


def test_a_decay_of_one_update_has_the_peak_and_the_next_update_the_final_rate():
    shape = {"peak": 2.0, "final_fraction": 0.5, "warmup_steps": 4, "decay_steps": 5}
    assert [learning_rate(step, **shape) for step in (3, 4, 5, 6)] == [2.0, 2.0, 1.0, 1.0]


def test_after_the_end_of_the_cosine_the_rate_stays():
    assert [learning_rate(step, **SHAPE) for step in (19072, 19073, 40_000)] == [pytest.approx(6e-5)] * 3


def test_a_decay_that_ends_within_the_warmup_leaves_the_rate_where_it_was():
    """An extended run whose first steps were fewer than its warmup."""
    shape = SHAPE | {"decay_steps": 10}
    assert {learning_rate(step, **shape) for step in (9, 10, 714, 715, 40_000)} == {6e-4 * 10 / 715}
