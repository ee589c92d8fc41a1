"""A made-up run beside llm.c's log must be judged as it was made."""

import pytest

from myna.evaluate.against_llmc import against_llmc, differences, other_settings, standing
from myna.evaluate.curves import read_curves


@pytest.fixture
def judged(make_gpt2_run, tmp_path):
    """The finding on a made-up run: (arguments of `make_gpt2_run`)."""

    def judge(**about):
        return against_llmc(read_curves(make_gpt2_run(tmp_path / "run", **about)))

    return judge


def test_llmcs_own_losses_are_on_track_to_the_end(judged):
    found = judged()
    assert (found.mark, found.tone, found.causes) == ("On track", "good", [])
    assert "nats" in found.text
    assert "A run within 0.02 nats is on track. Same network, same validation text" in found.text
    assert "its curve is reproduced" in found.text


def test_a_run_that_leaves_the_curve_is_off_since_then(judged):
    found = judged(steps=9000, apart=lambda step: 0.06 if step >= 5000 else 0.0, learning_rate=3e-4)
    assert (found.mark, found.tone) == ("Off", "bad")
    assert "It is off since step 5,000." in found.text
    assert "nats above llm.c's 3.4159 at the same tokens" in found.text
    assert "tokens behind" in found.text
    assert found.causes[0] == "its recipe, which differs: learning_rate 0.0003 (llm.c: 0.0006)"


def test_a_distance_that_grows_is_said_to(judged):
    found = judged(steps=9000, apart=lambda step: max(0, step - 4000) * 4e-5)
    assert "It is off since step 4,500, and the distance grows: it was 0.0" in found.text


def test_a_run_that_is_off_from_the_start_has_the_causes_of_that(judged):
    found = judged(steps=3000, apart=lambda step: 0.8)
    assert "It is off since the first evaluation that compares" in found.text
    assert any("initial weights" in cause for cause in found.causes)


def test_a_run_that_is_lower_is_ahead(judged):
    found = judged(steps=4000, apart=lambda step: -0.1 if step > 2000 else 0.0)
    assert (found.mark, found.tone) == ("Ahead", "odd")
    assert "It is ahead since step 2,250." in found.text
    assert "tokens ahead" in found.text
    assert any("a shorter schedule" in cause for cause in found.causes)


def test_a_shorter_run_is_named_as_a_cause(judged):
    assert (
        "tokens in all 1B (llm.c: 10.3B)"
        in judged(steps=2000, apart=lambda _: -0.2, batch_tokens=51_200).causes[0]
    )


def test_another_validation_text_has_more_room(judged, make_gpt2_run, tmp_path):
    found = judged(steps=9000, apart=lambda step: 0.035)
    assert found.mark == "Off"
    other = make_gpt2_run(tmp_path / "other", steps=9000, apart=lambda step: 0.035, corpus=["fineweb"])
    found = against_llmc(read_curves(other))
    assert found.mark == "On track"
    assert "A run within 0.05 nats is on track." in found.text
    assert "another sample" in found.text


def test_one_evaluation_alone_makes_no_verdict(judged):
    found = judged(steps=9000, apart=lambda step: 0.05 if step in (5000, 9000) else 0.0)
    assert found.mark == "On track"
    assert "It was" not in found.text


def test_a_run_that_came_back_says_when_it_was_away(judged):
    found = judged(steps=9000, apart=lambda step: 0.06 if 5000 <= step <= 6000 else 0.0)
    assert found.mark == "On track"
    assert "It was off from step 5,000 to step 6,000." in found.text


def test_the_opening_is_judged_by_tokens(make_gpt2_run, tmp_path):
    """As far behind as a twentieth of the tokens is on track where the loss falls steeply, at 500 steps and 1,000."""
    curves = read_curves(make_gpt2_run(tmp_path / "run", steps=1000, apart=lambda step: 0.06))
    assert standing(curves, 0.02).sign == 0
    curves = read_curves(make_gpt2_run(tmp_path / "late", steps=8000, apart=lambda step: 0.06))
    assert standing(curves, 0.02).sign == 1


def test_what_does_not_compare_is_not_judged(judged, make_run, tmp_path):
    assert against_llmc(read_curves(make_run(tmp_path / "other"))) is None
    early = judged(steps=200)
    assert early.mark == "Too early to compare"


def test_tokens_beyond_llmcs_run_are_left_out(make_gpt2_run, tmp_path):
    curves = read_curves(make_gpt2_run(tmp_path / "run", steps=20_000))
    assert differences(curves).steps[-1] == 19_500


def test_a_recipe_that_somebody_wrote_by_hand_is_compared_where_it_can_be():
    assert other_settings({}) == []
    assert other_settings({"learning_rate": "high", "optimizer_options": 3, "steps": None}) == []
    assert other_settings(
        {"optimizer": "muon", "optimizer_options": {"weight_decay": 0.0}, "dropout": 0.2}
    ) == [
        "weight_decay 0 (llm.c: 0.1)",
        "dropout 0.2 (llm.c: 0)",
        "optimizer muon (llm.c: adamw)",
    ]
