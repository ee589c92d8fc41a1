"""What is said of a run alone, on made-up metrics: each rule with a run that it holds for, and one that it doesn't."""

import re

import numpy as np
import pytest

from myna.evaluate.behaviour import behaviour, broken_steps, find_spikes, parting, rise, spikes, trend, waits
from myna.evaluate.curves import read_curves
from myna.run import Run


@pytest.fixture
def curves(make_run, write_records, tmp_path):
    """A run of made-up losses: (train of a step, validation of a step, steps, more of a step, the recipe's steps)."""
    made = []

    def make(train=None, val=None, steps=1000, every=50, more=None, planned=None, spread=0.02, seed=0):
        noise = np.random.default_rng(seed)
        path = make_run(tmp_path / f"run{len(made)}", steps=0)
        Run(path).write_recipe({"name": "made up", "steps": planned or steps})
        made.append(path)
        records = []
        for step in range(1, steps + 1):
            at = {"step": step, "tokens": 1000 * step}
            if train:
                records.append(
                    at | {"train_loss": train(step) + noise.normal(0, spread)} | (more(step) if more else {})
                )
            if val and step % every == 0:
                records.append(at | {"val_loss": val(step) + noise.normal(0, 0.002)})
        write_records(path, records)
        return read_curves(path)

    return make


def falling(step):
    return 3 + 3 * np.exp(-step / 300)


@pytest.mark.parametrize(
    ("loss", "mark", "words"),
    [
        (falling, "Still falling", r"The validation loss fell by 0\.\d+ nats over the last 200K tokens"),
        (lambda step: 3.0, "Flat", "no clear change"),
        (
            lambda step: 3 + 0.2 * max(0, step - 800) / 200,
            "Rising",
            r"The validation loss rose by 0\.\d+ nats",
        ),
    ],
)
def test_the_loss_falls_or_is_flat_or_rises(curves, loss, mark, words):
    found = trend(curves(val=loss))
    assert found.mark == mark
    assert re.search(words, found.text)


def test_a_finished_run_that_still_fell_is_told_so(curves):
    assert "It was still falling at the end" in trend(curves(val=falling)).text
    assert "at the end" not in trend(curves(val=falling, planned=2000)).text


def test_without_evaluations_the_training_loss_is_judged(curves):
    assert trend(curves(train=falling)).text.startswith("The training loss fell by")
    assert trend(curves(train=falling, steps=3)).mark == "Too short to judge"


def test_validation_that_rises_while_training_falls_is_overfitting(curves):
    found = parting(
        curves(falling, lambda step: 3.2 + 3 * np.exp(-step / 300) + 0.3 * max(0, step - 600) / 400)
    )
    assert (found.mark, found.tone) == ("Overfitting", "bad")
    assert found.text.startswith("Since step 800 the validation loss rose by 0.05")
    assert "The checkpoint nearest to that step is the better model" in found.text


def test_validation_that_stays_while_training_falls_is_parting(curves):
    found = parting(curves(lambda step: 4 - step / 1000, lambda step: 4 - min(step, 600) / 1000))
    assert (found.mark, found.tone) == ("Parting", "odd")
    assert "part since step" in found.text


def test_a_gap_that_stays_and_a_steep_fall_are_no_parting(curves):
    assert parting(curves(falling, lambda step: falling(step) + 0.4)).mark == "Together"
    steep = parting(curves(lambda step: 2 + 100 / step, lambda step: 2.05 + 80 / step))
    assert steep.mark == "Together"
    assert parting(curves(train=falling)) is None
    assert parting(curves(val=falling)) is None


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.5])
def test_the_noise_of_small_batches_is_no_parting(curves, spread):
    """Without the spread in the rule, most of these runs were said to part."""
    for seed in range(4):
        found = parting(curves(falling, lambda step: falling(step) + 0.1, spread=spread, seed=seed))
        assert found.mark == "Together"


def test_noisy_losses_that_part_are_still_seen(curves):
    def worse(step):
        return falling(step) + 0.1 + max(0, step - 500) / 500

    for seed in range(4):
        assert parting(curves(falling, worse, spread=0.3, seed=seed)).mark in ("Overfitting", "Parting")


def test_spikes_are_counted_by_the_rule_of_training(curves):
    def jumping(step):
        return 3 + (1.5 if step in (400, 401, 405) else 0.9 if step == 700 else 0)

    found = find_spikes(curves(jumping).train)
    assert [(spike.first, spike.last) for spike in found] == [(400, 405), (700, 700)]
    said = spikes(curves(jumping))
    assert (said.mark, said.tone) == ("2 spikes", "odd")
    assert "jumped 2 times, last at step 700" in said.text
    assert "at step 40" in said.text
    assert "It lasted 6 steps." in said.text
    assert spikes(curves(falling)).mark == "No spikes"
    assert spikes(curves(falling, steps=50)) is None


def test_a_loss_that_goes_up_slowly_is_a_long_rise_and_no_spike(curves):
    def hill(step):
        return falling(step) + 2 * np.exp(-(((step - 500) / 80) ** 2))

    found = rise(curves(hill))
    assert (found.mark, found.tone) == ("A long rise", "odd")
    assert re.search(r"rose by 1\.\d+ nats, from 3\.99\d+ at step 360 to 5\.\d+ at step 500", found.text)
    assert "It was back at step " in found.text
    found = rise(curves(lambda step: falling(min(step, 600)) + max(0, step - 600) / 400))
    assert found.tone == "bad"
    assert found.text.endswith("It has not come back.")


@pytest.mark.parametrize("spread", [0.02, 0.3, 0.8])
def test_spikes_and_noise_are_no_long_rise(curves, spread):
    for seed in range(4):
        assert rise(curves(falling, spread=spread, seed=seed)) is None
    assert rise(curves(lambda step: 3 + 2 * (400 <= step < 405))) is None
    assert rise(curves(falling, steps=30)) is None


def test_losses_that_are_no_numbers_and_skipped_updates_are_named(curves):
    def bad(step):
        return {"skipped": 0} | ({"train_loss": float("nan")} if step in (500, 501) else {})

    found = broken_steps(curves(falling, more=bad))
    assert (found.mark, found.tone) == ("Not a number", "bad")
    assert "at step 500 (2 times in all)" in found.text
    found = broken_steps(curves(falling, more=lambda step: {"skipped": int(step % 50 == 0)}))
    assert (found.mark, found.tone) == ("Skipped updates", "odd")
    assert "fp16 skipped 20 updates, 2.0% of the steps, last at step 1,000" in found.text
    assert broken_steps(curves(falling, more=lambda step: {"skipped": int(step == 3)})) is None
    assert broken_steps(curves(falling)) is None


@pytest.mark.parametrize(("wait", "mark"), [(0.01, "Input keeps up"), (0.2, "Waits for input")])
def test_waits_for_input_are_named(curves, wait, mark):
    def measured(step):
        return {"seconds": 90.0 if step == 1 else 1.0, "input_wait_seconds": 80.0 if step == 1 else wait}

    found = waits(curves(falling, more=measured))
    assert found.mark == mark
    assert f"{wait:.1%} of the time" in found.text
    assert waits(curves(falling)) is None


def test_all_rules_speak_of_a_run_in_one_list(curves):
    marks = [finding.mark for finding in behaviour(curves(falling, lambda step: falling(step) + 0.1))]
    assert marks == ["Still falling", "Together", "No spikes"]
