"""`myna train --epochs N`: the steps it chooses, what a resume finds, and what is refused."""

import shutil

import pytest

from myna.commands import train_end
from myna.data.ramp import Ramp
from myna.data.shards import open_dataset
from myna.errors import UsageError
from myna.train.laid_out import steps_of_epochs

T, G = 32, 8  # the small run's tokens in a window, and windows in a step


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A picture takes longer to draw than these runs take to train."""
    monkeypatch.setattr(train_end, "finish", lambda *given: None)


@pytest.fixture(scope="module")
def windows(small_dataset):
    return -(-open_dataset(small_dataset, verify=False).train.n_tokens // T)


@pytest.mark.parametrize(
    ("epochs", "windows", "samples", "steps"),
    [(1, 8, 8, 1), (1, 9, 8, 2), (0.1, 30, 1, 3), (3, 10, 1, 30), (1e-9, 5, 8, 1), (2.5, 100, 8, 32)],
)
def test_the_fewest_steps_that_go_through_it(epochs, windows, samples, steps):
    assert steps_of_epochs(epochs, windows, Ramp(samples, samples)) == steps


def test_it_is_the_run_of_so_many_steps_bit_for_bit(train, windows, hashes, tmp_path, capsys):
    steps = -(-windows // (10 * G))
    by_epochs = train(tmp_path / "epochs", 0, "--epochs", 0.1, "--warmup-steps", 4)
    said = capsys.readouterr().out
    assert f"--epochs 0.1: {steps} steps, since an epoch is {windows:,} windows of 32 tokens" in said
    assert f"laid over {steps} steps, of 6,900 in the recipe: " in said
    assert f"0.10 epochs in {steps} steps" in said
    counted = train(tmp_path / "steps", steps, "--checkpoint-every", 1)
    assert hashes(by_epochs.path, steps) == hashes(counted.path, steps)
    recipe = by_epochs.recipe()
    assert (recipe["steps"], recipe["warmup_steps"]) == (steps, 4)
    assert recipe["epochs"] == {
        "epochs": 0.1, "recipe_steps": 6900, "steps": steps, "evaluations_apart": 1,
    }  # fmt: skip


def test_a_resume_goes_on_with_its_steps_and_another_length_is_refused(train, hashes, tmp_path, capsys):
    run = train(tmp_path / "run", 0, "--epochs", 0.1, "--checkpoint-every", 5)
    steps, kept = run.recipe()["steps"], run.recipe()
    undisturbed = hashes(run.path, steps)
    shutil.rmtree(run.checkpoints / f"step_{steps:08d}")
    for more, says in (
        (
            ("--epochs", 0.2),
            f"begun with --epochs 0.1, which came to {steps} steps, and not with --epochs 0.2",
        ),
        (("--minutes", 1), "and not with --minutes 1; give --epochs 0.1 again"),
        ((), "give --epochs 0.1 again, or another --out"),
    ):
        with pytest.raises(UsageError, match=says):
            train(run.path, 0, *more, "--checkpoint-every", 5)
    train(run.path, 0, "--epochs", 0.1, "--checkpoint-every", 5)
    assert "resuming after step" in capsys.readouterr().out
    assert hashes(run.path, steps) == undisturbed
    assert run.recipe() == kept
    with pytest.raises(UsageError, match="begun without --epochs, with 1 step; leave --epochs out"):
        train(train(tmp_path / "counted", 1).path, 0, "--epochs", 1)


def test_of_a_mixture_an_epoch_is_all_its_windows(train, mixture, windows, small_dataset, tmp_path, capsys):
    run = train(tmp_path / "run", 0, *mixture("small:0.5", "other:0.5"), "--epochs", 0.1)
    other = open_dataset(mixture("other")[1], verify=False).train
    both = windows - (-other.n_tokens // T)
    steps = -(-both // (10 * G))
    assert run.recipe()["steps"] == steps
    said = capsys.readouterr().out
    assert f"--epochs 0.1: {steps} steps, since an epoch is {both:,} windows of 32 tokens" in said
    times = steps * G * 0.5 / -(-other.n_tokens // T)
    assert (
        f"other: 50.00% of the windows, {other.n_tokens:,} training tokens, gone through {times:.2f} times"
        in said
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--epochs", "0"], "--epochs is 0.0; give a number over 0"),
        (["--epochs", "-1"], "--epochs is -1.0; give"),
        (["--epochs", "nan"], "--epochs is nan; give"),
        (["--epochs", "1e9"], "--epochs is 1000000000.0; give a number over 0, at most a million"),
        (["--epochs", "1", "--steps", "5"], "leave --steps out, or --epochs"),
        (["--epochs", "1", "--minutes", "5"], "--minutes and --epochs both choose the number of steps"),
        (["--epochs", "1", "--extend"], "give --steps N, and leave --epochs out"),
    ],
)
def test_a_wrong_call_is_a_line_and_leaves_nothing(refused, tmp_path, more, says):
    assert says in refused("--out", tmp_path / "new" / "run", *more)
    assert list(tmp_path.iterdir()) == []
