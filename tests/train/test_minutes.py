"""How many steps fit into some minutes: the arithmetic, without a clock."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.errors import UsageError
from myna.recipes import RECIPES, named
from myna.train.laid_out import LAID_OVER, LaidOut
from myna.train.minutes import (
    Costs,
    Recurring,
    checkpoints_of,
    evaluations_of,
    lay_out,
    rounded_up,
    steps_within,
)
from myna.train.recipe import Recipe

DEMO = Recipe(steps=1200, warmup_steps=60, eval_every=200, sample_every=200, checkpoint_every=600)


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
    counts = {f.name for f in fields(DEMO) if f.name.endswith(("_steps", "_every"))}
    assert counts == set(LAID_OVER)


def test_a_number_that_was_given_stays():
    over = LaidOut(3, 1200, 120).over(DEMO, given={"warmup_steps", "eval_every"})
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
    return LaidOut(1, DEMO.steps, steps).over(DEMO)


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
def test_what_is_chosen_fits_and_a_step_more_does_not(seconds, step, evaluation, checkpoint):
    each = costs(step, evaluation, checkpoint)
    steps = steps_within(seconds, each, laid)
    assert steps == 0 or each.whole(laid(steps)) <= seconds
    assert each.whole(laid(steps + 1)) > seconds


@pytest.mark.parametrize(
    ("evaluation", "apart", "evaluations"),
    [(5, 1, 7), (9, 2, 4), (16, 3, 3), (24, 6, 2), (60, 7, 2), (90, 7, 2)],
)
def test_evaluations_that_take_too_long_come_less_often(evaluation, apart, evaluations):
    """Of 160 s they may have 48. At the least there is one before step 1, and one after the last."""
    each = costs(0.1, evaluation, 0)
    chosen = lay_out(1, DEMO, (), each, 160)
    assert chosen.apart == apart
    if not chosen.steps:
        assert evaluation == 90
        return
    recipe = chosen.over(DEMO)
    assert evaluations_of(recipe.eval_every, recipe.steps) == evaluations
    assert each.whole(recipe) <= 160 < each.whole(recipe) + 0.2


def test_those_whose_number_was_given_do_not():
    chosen = lay_out(1, DEMO, {"eval_every"}, costs(0.1, 9, 0), 160)
    assert chosen.over(DEMO, {"eval_every"}).eval_every == 200
    assert chosen.steps == 1000  # six evaluations take 54 s, and one more would take too long


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.09])
def test_nothing_fits_into_less_than_a_step(seconds):
    assert steps_within(seconds, costs(0.1, 0, 0), laid) == 0


def test_what_is_kept_is_read_back():
    assert LaidOut.of({"steps": 5}) is None
    kept = LaidOut(2.5, 1200, 187, 2)
    assert LaidOut.of({"minutes": kept.to_dict()}) == kept


@pytest.mark.parametrize(
    "said",
    [
        None,
        3,
        [3, 1200, 187],
        {},
        {"steps": ...},
        {"minutes": "3"},
        {"minutes": float("nan")},
        {"minutes": 10**400},
        {"recipe_steps": 0},
        {"steps": True},
        {"steps": [187]},
        {"evaluations_apart": 1.5},
    ],
)
def test_what_cannot_be_is_refused(said):
    if isinstance(said, dict) and said:
        said = {k: v for k, v in (LaidOut(3, 1200, 187).to_dict() | said).items() if v is not ...}
    with pytest.raises(UsageError):
        LaidOut.of({"minutes": said})


@given(st.floats(1e-4, 1e5))
def test_minutes_are_rounded_up_by_a_tenth_at_most(minutes):
    assert minutes <= rounded_up(minutes) * (1 + 1e-5)
    assert rounded_up(minutes) <= 1.1 * minutes * (1 + 1e-5)
