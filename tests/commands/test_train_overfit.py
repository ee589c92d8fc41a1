"""`myna train --overfit`: one batch until it is known by heart, in a run that is never taken for a real one."""

import json

import pytest

from myna.cli import main
from myna.commands.train import read_call
from myna.commands.train_overfit import NEAR_ZERO_NATS
from myna.model.checkpoint import checkpoint_step, list_checkpoints

LEARNS = ["--overfit", "--dropout", "0", "--learning-rate", "0.01", "--optimizer.weight-decay", "0"]


@pytest.fixture
def known(train, tmp_path, capsys):
    run = train(tmp_path / "known", 400, *LEARNS)
    return run, capsys.readouterr().out


def losses(run):
    return [record["train_loss"] for record in run.metrics() if "train_loss" in record]


def test_it_ends_at_the_step_at_which_the_batch_is_known(known, train, tmp_path, capsys):
    run, said = known
    limit = float(said.split("until its loss is below ")[1].split()[0])
    assert limit >= NEAR_ZERO_NATS
    found = losses(run)
    assert found[-1] < limit <= min(found[:-1])
    assert len(found) < 400
    assert (
        f"step {len(found)}: the loss is {found[-1]:.4f}, so the batch of 8 sequences is known by heart"
        in said
    )
    assert checkpoint_step(list_checkpoints(run.checkpoints)[0]) == len(found)
    assert "epochs" not in said

    train(tmp_path / "known", 400, *LEARNS)
    again = capsys.readouterr().out
    assert f"is finished: {len(found)} of 400 steps" in again
    assert "is known by heart" in again
    assert losses(run) == found

    # The folder says what it is.
    assert run.recipe()["overfit"] is True
    assert not any("val_loss" in record for record in run.metrics())
    assert not run.samples_path.exists()
    assert main(["report", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "One batch alone. It trained on one batch again and again (--overfit)" in shown
    assert "No reference applies" not in shown


def test_a_batch_that_is_not_known_at_the_last_step_is_said_with_what_to_look_at(train, tmp_path, capsys):
    run = train(tmp_path / "run", 3, *LEARNS)
    said = capsys.readouterr().out
    found = losses(run)
    assert len(found) == 3
    assert f"step 3: the loss is {found[-1]:.4f} (lowest: " in said
    assert "is not known by heart" in said
    assert "  the learning rate, 0.01: " in said
    assert "the learning rate 0.01 is higher than is usual for adamw (1e-06 to 0.006)" in said


def test_each_step_has_the_same_batch(train, tmp_path):
    """With no learning rate to speak of, the loss stays; other batches have others."""
    found = losses(train(tmp_path / "one", 3, "--overfit", "--dropout", "0", "--learning-rate", "1e-12"))
    assert found[1:] == pytest.approx(found[:1] * 2, abs=1e-6)
    found = losses(train(tmp_path / "many", 3, "--dropout", "0", "--learning-rate", "1e-12"))
    assert abs(found[1] - found[0]) > 1e-4


@pytest.mark.parametrize("first", [["--overfit"], []])
def test_it_is_never_mixed_with_an_ordinary_run(train, refused, tmp_path, first):
    train(tmp_path / "run", 2, *first)
    other = [] if first else ["--overfit"]
    holds = "a run of --overfit" if first else "an ordinary run, and --overfit makes none"
    for more in ([], ["--override"]):
        said = refused("--out", tmp_path / "run", "--steps", 2, *other, *more)
        assert f"run holds {holds}; give another --out" in said


@pytest.mark.parametrize(
    "more",
    [
        ["--minutes", "3"], ["--extend"], ["--order", "sequential"], ["--hellaswag", "auto"], ["--eval-every", "5"],
        ["--sample-every", "5"],
    ],
)  # fmt: skip
def test_flags_of_a_real_run_are_refused(refused, tmp_path, more):
    said = refused("--out", tmp_path / "run", "--overfit", *more)
    assert f"--overfit trains on one batch alone, so it has no use for {more[0]}; leave it out" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_given_fits_one_batch():
    call = read_call(["gpt2-124m", "--overfit"])
    recipe = call.settings
    assert str(call.out) == "runs/gpt2-124m-overfit"
    assert (recipe.batch_tokens, recipe.steps, recipe.decay) == (4 * 1024, 1000, "constant")
    assert (recipe.warmup_steps, recipe.dropout, recipe.eval_every, recipe.checkpoint_every) == (
        10,
        0.0,
        0,
        0,
    )
    given = ["--steps", "7", "--dropout", "0.1", "--batch-tokens", "1024", "--decay", "linear", "--out", "x"]
    call = read_call(["gpt2-124m", "--overfit", *given])
    recipe = call.settings
    assert (recipe.steps, recipe.dropout, recipe.batch_tokens, recipe.decay) == (7, 0.1, 1024, "linear")
    assert str(call.out) == "x"
    assert read_call(["gpt2-124m"]).settings.steps == 19_073


def test_a_run_of_before_the_flag_goes_on(train, tmp_path, capsys):
    run = train(tmp_path / "run", 2)
    for path in (run.recipe_path, list_checkpoints(run.checkpoints)[0] / "train_state.json"):
        assert "overfit" in path.read_text()
    stored = run.recipe()
    del stored["overfit"]
    run.recipe_path.write_text(json.dumps(stored))
    train(tmp_path / "run", 2)
    assert "is finished: 2 of 2 steps" in capsys.readouterr().out
