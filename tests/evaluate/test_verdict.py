import pytest

from myna.evaluate.curves import read_curves
from myna.evaluate.verdict import verdict


@pytest.fixture
def marks(make_gpt2_run, tmp_path):
    """What is said of a made-up run, as mark -> finding: (arguments of `make_gpt2_run`)."""

    def judge(**about):
        found = verdict(read_curves(make_gpt2_run(tmp_path / "run", **about)))
        return {finding.mark: finding for finding in found}

    return judge


def test_a_whole_run_with_gpt2s_score_is_reproduced(marks):
    found = marks(hellaswag=0.30)
    assert list(found)[:4] == [
        "Reproduced",
        "On track",
        "Below GPT-2's loss",
        "Level with GPT-2 on HellaSwag",
    ]
    assert found["Reproduced"].text == (
        "Yes. Its HellaSwag accuracy and its validation loss are level with GPT-2 124M's or better."
    )
    assert "nats below that of" in found["Below GPT-2's loss"].text
    assert "GPT-2 124M on FineWeb, 3.4250, and has been below since step " in found["Below GPT-2's loss"].text
    assert (
        "+0.0055 from GPT-2 124M's 0.2945 (+1.2 standard errors)"
        in found["Level with GPT-2 on HellaSwag"].text
    )


def test_a_score_below_gpt2s_is_not_reproduced(marks):
    found = marks(hellaswag=0.27)
    assert found["Not reproduced"].tone == "bad"
    assert found["Not reproduced"].text.endswith("its HellaSwag accuracy is below GPT-2's.")
    assert found["Below GPT-2 on HellaSwag"].tone == "odd"


def test_a_run_that_goes_on_is_not_there_yet(marks):
    found = marks(steps=2000, hellaswag=0.31)
    assert found["Not yet"].text.endswith("its validation loss is above GPT-2's.")
    assert found["Above GPT-2's loss"].tone == "plain"
    assert "Above GPT-2 on HellaSwag" in found


def test_a_run_without_a_score_is_judged_by_its_losses(marks):
    found = marks(steps=11_000)
    assert list(found)[:2] == ["On track", "Below GPT-2's loss"] or "Level with GPT-2's loss" in found
    assert found["Not compared"].text == "On HellaSwag: No HellaSwag score yet."


def test_a_run_on_fineweb_edu_is_held_against_gpt2_alone(marks):
    found = marks(steps=3000, corpus=["fineweb-edu"])
    assert next(iter(found)) == "Above GPT-2's loss"
    assert "GPT-2 124M on FineWeb-Edu, 3.2924" in found["Above GPT-2's loss"].text
    assert "llm.c's curve is known on FineWeb alone" in found["Not compared"].text


def test_a_run_that_nothing_applies_to_is_judged_by_itself(make_run, tmp_path):
    found = verdict(read_curves(make_run(tmp_path / "run", steps=200)))
    assert found[0].mark == "No reference applies"
    assert "does not record what it was trained on" in found[0].text
    assert [finding.mark for finding in found[1:]] == ["Still falling", "Together", "No spikes"]
