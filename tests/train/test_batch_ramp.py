"""`--batch-ramp-tokens`: the batch grows at first. Steps of 1, 2, ... 8 sequences of 32 tokens over 40 sequences."""

import json
import os
import re
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from myna.commands import train_end
from myna.data.batches import TrainStream, micro_batches
from myna.data.shards import open_dataset
from myna.errors import Stopped
from myna.recipes import named
from myna.train.recipe import Recipe
from myna.train.step import Stepper

RAMP = ("--batch-ramp-tokens", 40 * 32, "--batch-ramp-start-tokens", 64, "--micro-batch", 2)
SIZES = [
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    4,
    4,
    4,
    4,
    6,
    6,
    8,
    8,
    8,
]  # the line passes 4 at 13.3 samples, 6 at 26.7, 8 at 40


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A picture takes longer to draw than these runs take to train."""
    monkeypatch.setattr(train_end, "finish", lambda *given: None)


def step_records(run):
    return [record for record in run.metrics() if "train_loss" in record]


def test_steps_are_updates_and_tokens_are_what_they_took(train, tmp_path, capsys):
    run = train(tmp_path / "run", 16, *RAMP)
    tokens = [record["tokens"] for record in step_records(run)]
    assert [b - a for a, b in pairwise([0, *tokens])] == [32 * size for size in SIZES]
    said = capsys.readouterr().out
    assert (
        "the batch grows from 64 to 256 tokens over the first 13 steps (1,344 tokens); 2,112 tokens in all"
        in said
    )
    state = json.loads((run.checkpoints / "step_00000016" / "train_state.json").read_text())
    assert (state["samples"], state["tokens"]) == (sum(SIZES), 32 * sum(SIZES))


def test_the_loss_is_the_mean_of_the_steps_own_batch(train, tmp_path, monkeypatch):
    """A network that is not trained has about the same loss in every step, however many targets it has."""
    monkeypatch.setattr("myna.train.optimizers.optimizer.Optimizer.step", lambda *args: None)
    run = train(tmp_path / "run", 16, *RAMP, "--dropout", 0)
    assert [record["train_loss"] for record in step_records(run)] == pytest.approx([5.56] * 16, abs=0.06)


def test_a_killed_run_goes_on_bit_for_bit(train, hashes, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", 16, *RAMP)
    seed_step, at = Stepper.seed_step, [5, 9, 14]  # in each stage

    def interrupted(self, step):
        if at and step == at[0]:
            at.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        seed_step(self, step)

    monkeypatch.setattr(Stepper, "seed_step", interrupted)
    for _ in range(3):
        with pytest.raises(Stopped):
            train(tmp_path / "parts", 16, *RAMP)
    parts = train(tmp_path / "parts", 16, *RAMP)
    assert hashes(parts.path, 16) == hashes(whole.path, 16)
    assert [r["tokens"] for r in step_records(parts)] == [r["tokens"] for r in step_records(whole)]


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_ranks_and_micro_batches_see_the_same_batches(small_dataset, ranks, micro_batch):
    recipe = Recipe(
        block_size=32,
        sequence_length=32,
        batch_tokens=32 * 16,
        batch_ramp_tokens=3000,
        batch_ramp_start_tokens=128,
    )
    stream, consumed = TrainStream(open_dataset(small_dataset).train, 32, seed=3), 0
    parts = [micro_batches(stream, 0, recipe.ramp.at, micro_batch, rank, ranks) for rank in range(ranks)]
    for _ in range(20):
        samples = recipe.ramp.at(consumed)
        of_a_rank = samples // ranks // micro_batch
        seen = np.concatenate([next(part)[0] for part in parts for _ in range(of_a_rank)])
        assert np.array_equal(seen, stream.batch(consumed, samples)[0])
        consumed += samples
    assert samples == 16


def test_epochs_count_samples(train, small_dataset, tmp_path, capsys):
    run = train(tmp_path / "run", 0, "--epochs", 0.05, *RAMP)
    windows = -(-open_dataset(small_dataset).train.n_tokens // 32)
    recipe = Recipe.from_dict(run.recipe())
    assert recipe.ramp.after(recipe.steps - 1) < 0.05 * windows <= recipe.ramp.after(recipe.steps)
    assert "and a step takes 2 to 8" in capsys.readouterr().out


def test_a_finished_run_goes_on_further(train, hashes, tmp_path):
    """From the middle of the ramp; the learning rate is constant, so the longer run is the same."""
    constant = (*RAMP, "--decay", "constant", "--checkpoint-every", 16)
    train(tmp_path / "run", 9, *constant)
    more = train(tmp_path / "run", 16, *constant, "--extend")
    whole = train(tmp_path / "whole", 16, *constant)
    assert hashes(more.path, 16) == hashes(whole.path, 16)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((*RAMP, "--minutes", 1), "--minutes measures one kind of step"),
        ((*RAMP, "--overfit"), "no use for --batch-ramp-tokens; leave it out"),
        (("--batch-ramp-start-tokens", 64), "does nothing without --batch-ramp-tokens"),
        (("--batch-ramp-tokens", 900), "start-tokens is 32,768; .* 256 that is smaller than it; give 128"),
        ((*RAMP[:2], "--batch-ramp-start-tokens", 192), "multiple of --sequence-length 32, .* give 64"),
        ((*RAMP[:2], "--batch-ramp-start-tokens", 48), "multiple of --sequence-length 32, .* give 32"),
        ((*RAMP[:2], "--batch-ramp-start-tokens", 256), "give 128"),
        (("--batch-ramp-tokens", 900, "--batch-tokens", 32), "a batch of one sequence has nothing to grow from"),
        ((*RAMP[:4], "--micro-batch", 4), "a batch of 2 sequences does not divide among 1 ranks with micro-batches of "
         "4; give --micro-batch 2, or --batch-ramp-start-tokens 128"),
        ((*RAMP[:4], "--micro-batch", 8), "--micro-batch 2, or --batch-ramp-tokens 0"),
        (("--batch-ramp-tokens", -1), "--batch-ramp-tokens is -1; give 0 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(refused, tmp_path, args, says):
    said = refused("--out", tmp_path / "run", *(() if "--minutes" in args else ("--steps", 3)), *args)
    assert re.search(says, said), said
    assert not (tmp_path / "run").exists()


def test_another_ramp_is_another_recipe(train, refused, tmp_path):
    train(tmp_path / "run", 4, *RAMP)
    assert "--batch-ramp-tokens was 1280, now 0" in refused(
        "--out", tmp_path / "run", "--steps", 4, "--micro-batch", 2
    )


def test_the_docs_count_gpt3s_steps():
    text = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    words = re.search(r"myna train gpt3-124m .*--batch-ramp-tokens .*", text)[0].split()
    given = {flag: int(value) for flag, value in pairwise(words) if flag.startswith("--") and value.isdigit()}
    recipe, ramp = (
        named("gpt3-124m"),
        replace(named("gpt3-124m"), batch_ramp_tokens=given["--batch-ramp-tokens"]).ramp,
    )
    for flag, tokens in (
        ("--steps", recipe.tokens),
        ("--decay-steps", recipe.decay_steps * recipe.batch_tokens),
        ("--warmup-steps", 375_000_000),
    ):
        assert given[flag] == ramp.steps_to(-(-tokens // 2048))
    assert f"full after {sum(steps for _, steps in ramp.stages()):,} steps" in text
