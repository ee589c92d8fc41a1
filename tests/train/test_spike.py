import json
import random

import pytest

from myna.errors import DivergedError
from myna.spikes import WINDOW_STEPS
from myna.train.spike import SpikeRule


def quiet(rule, steps=300, mean=3.0, deviation=0.02, seed=0):
    chance = random.Random(seed)
    for step in range(1, steps + 1):
        rule.see(step, chance.gauss(mean, deviation))


def test_noise_and_a_falling_loss_are_no_spikes():
    said = []
    rule = SpikeRule("stop", said.append)
    for step in range(1, 3000):
        rule.see(step, 3 + 8 * 0.99**step + random.Random(step).gauss(0, 0.03))
    assert said == []
    assert 2.9 < rule.mean < 3.1


def test_a_jump_is_named_or_stops():
    said = []
    rule = SpikeRule("warn", said.append)
    quiet(rule)
    rule.see(301, 3.5)
    (line,) = said
    assert line.startswith("step 301: the loss 3.5000 spikes above 3.1")
    rule = SpikeRule("stop", said.append)
    quiet(rule)
    with pytest.raises(
        DivergedError, match=r"step 301: the loss 3\.5000 spikes above .* nothing was updated"
    ):
        rule.see(301, 3.5)


def test_the_limit_is_six_deviations_and_a_tenth_of_a_nat():
    for deviation, jump, spikes in ((0.0001, 0.09, 0), (0.0001, 0.11, 1), (0.1, 0.5, 0), (0.1, 0.75, 1)):
        said = []
        rule = SpikeRule("warn", said.append)
        quiet(rule, steps=2000, deviation=deviation)
        said.clear()
        rule.see(2001, rule.mean + jump)
        assert len(said) == spikes, (deviation, jump)


def test_the_first_steps_are_not_judged():
    rule = SpikeRule("stop", print)
    for step in range(1, WINDOW_STEPS + 1):
        rule.see(step, 3.0 + 5 * (step % 7 == 0))


def test_one_spike_does_not_blind_the_rule_and_a_lasting_rise_becomes_normal():
    said = []
    rule = SpikeRule("warn", said.append)
    quiet(rule)
    rule.see(301, 50.0)
    rule.see(302, 3.6)
    assert len(said) == 2
    for step in range(303, 900):
        rule.see(step, 3.6)
    assert len(said) < 100
    assert rule.mean == pytest.approx(3.6, abs=0.05)


def test_its_state_goes_through_json_bit_for_bit():
    whole, parts = SpikeRule("warn", print), SpikeRule("warn", print)
    quiet(whole)
    quiet(parts, steps=150)
    again = SpikeRule("warn", print)
    again.load(json.loads(json.dumps(parts.state())))
    chance = random.Random(0)
    losses = [chance.gauss(3.0, 0.02) for _ in range(300)]
    for step, loss in enumerate(losses[150:], 151):
        again.see(step, loss)
    assert again.state() == whole.state()
