"""How many steps fit into some minutes: the arithmetic, without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.errors import UsageError
from myna.recipes import RECIPES, named
from myna.train.minutes import (
    LAID_OVER,
    Costs,
    LaidOut,
    Recurring,
    checkpoints_of,
    evaluations_of,
    rounded_up,
    steps_within,
)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("steps", [1, 3, 187, 40_000])
def test_each_count_of_steps_keeps_its_share(name, steps):
    recipe = named(name)
    over = LaidOut(3, recipe.steps, steps).over(recipe)
    assert over.steps == steps
    for field in LAID_OVER:
        before, after = getattr(recipe, field), getattr(over, field)
        assert (after == 0) == (before == 0), field  # what was off stays off, what was there stays there
        assert 0 <= after / steps - before / recipe.steps < 1 / steps, field
    for every in ("eval_every", "sample_every", "hellaswag_every"):
        before, after = (evaluations_of(getattr(r, every), r.steps) for r in (recipe, over))
        assert after <= before + 1, every
    assert LaidOut(3, recipe.steps, recipe.steps).over(recipe) == recipe


def test_every_field_that_counts_steps_is_laid_over():
    from dataclasses import fields

    counts = {f.name for f in fields(named("pydoc")) if f.name.endswith(("_steps", "_every"))}
    assert counts == set(LAID_OVER)


def test_a_number_that_was_given_stays():
    over = LaidOut(3, 1200, 120).over(named("pydoc"), given={"warmup_steps", "eval_every"})
    assert (over.warmup_steps, over.eval_every, over.sample_every) == (60, 200, 20)


def costs(step, evaluation, checkpoint):
    return Costs(
        step,
        1,
        (
            Recurring("validation", evaluation, lambda r: evaluations_of(r.eval_every, r.steps)),
            Recurring("checkpoints", checkpoint, lambda r: checkpoints_of(r.checkpoint_every, r.steps)),
        ),
    )


def laid(steps):
    recipe = named("pydoc")
    return LaidOut(1, recipe.steps, steps).over(recipe)


def test_what_recurs_is_taken_off():
    # 1,200 steps of 0.1 s, seven validations of 5 s, and checkpoints after 600 and 1,200 of 2.5 s: 160 s.
    assert costs(0.1, 5, 2.5).whole(laid(1200)) == pytest.approx(160)
    assert steps_within(160.001, costs(0.1, 5, 2.5), laid) == 1200
    assert steps_within(160.001, costs(0.1, 0, 0), laid) == 1600


@given(
    seconds=st.floats(0, 1e5),
    step=st.floats(1e-3, 100),
    evaluation=st.floats(0, 1000),
    checkpoint=st.floats(0, 100),
)
def test_what_is_chosen_fits_and_little_time_is_left(seconds, step, evaluation, checkpoint):
    each = costs(step, evaluation, checkpoint)
    steps = steps_within(seconds, each, laid)
    assert steps == 0 or each.whole(laid(steps)) <= seconds
    # A step more may bring one more of each that recurs, since its spacing is rounded.
    most = (steps + 1) * step + 9 * evaluation + 3 * checkpoint
    assert most > seconds


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.09])
def test_nothing_fits_into_less_than_a_step(seconds):
    assert steps_within(seconds, costs(0.1, 0, 0), laid) == 0


def test_what_is_kept_is_read_back():
    assert LaidOut.of({"steps": 5}) is None
    kept = LaidOut(2.5, 1200, 187)
    assert LaidOut.of({"minutes": kept.to_dict()}) == kept


@pytest.mark.parametrize(
    "said",
    [
        None,
        3,
        [3, 1200, 187],
        {},
        {"minutes": 3, "recipe_steps": 1200},
        {"minutes": "3", "recipe_steps": 1200, "steps": 187},
        {"minutes": float("nan"), "recipe_steps": 1200, "steps": 187},
        {"minutes": 3, "recipe_steps": 0, "steps": 187},
        {"minutes": 3, "recipe_steps": 1200, "steps": True},
        {"minutes": 3, "recipe_steps": 1200, "steps": [187]},
    ],
)
def test_what_cannot_be_is_refused(said):
    with pytest.raises(UsageError):
        LaidOut.of({"minutes": said})


@given(st.floats(1e-4, 1e5))
def test_minutes_are_rounded_up_by_a_tenth_at_most(minutes):
    assert minutes <= rounded_up(minutes) * (1 + 1e-5)
    assert rounded_up(minutes) <= 1.1 * minutes * (1 + 1e-5)
