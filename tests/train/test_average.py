import contextlib
import json

import pytest
import torch

from myna import GPT, GPTConfig
from myna.cli import main
from myna.model.weights import read_safetensors
from myna.train.average import WeightAverage


def checkpoint(run, step):
    return run.checkpoints / f"step_{step:08d}"


def model_of(run, step):
    return GPT.from_pretrained(checkpoint(run, step)).state_dict()


def test_the_model_is_the_average_and_training_goes_on_from_the_weights(train, tmp_path):
    """Against the same run without: its weights at each step, averaged here."""
    plain = train(tmp_path / "plain", 6, "--checkpoint-every", 1)
    averaged = train(tmp_path / "averaged", 6, "--average-decay", 0.3, "--checkpoint-every", 1)
    losses = [[r["train_loss"] for r in run.metrics() if "train_loss" in r] for run in (plain, averaged)]
    assert losses[0] == losses[1]
    mean = None
    for step in range(1, 7):
        weights = model_of(plain, step)
        if mean is None:  # the first step's average began with the weights before it
            mean = model_of(averaged, 1)
            continue
        decay = min(0.3, step / (step + 15))
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
        torch.testing.assert_close(model_of(averaged, step), mean)
        state = read_safetensors(checkpoint(averaged, step) / "train_state.safetensors")
        for name, weight in weights.items():
            kept = torch.from_numpy(state[f"weights.{name}"])
            assert torch.equal(kept, weight[: len(kept)])  # without the vocabulary's padding


def test_a_resume_is_exact(train, hashes, tmp_path):
    args = ("--average-decay", 0.9, "--checkpoint-every", 3)
    whole = train(tmp_path / "whole", 6, *args)
    run = train(tmp_path / "run", 6, *args)
    checkpoint(run, 6).rename(tmp_path / "away")
    train(tmp_path / "run", 6, *args)
    assert hashes(run.path, 6) == hashes(whole.path, 6)
    states = [(checkpoint(one, 6) / "train_state.json").read_bytes() for one in (run, whole)]
    assert states[0] == states[1]


def test_what_is_validated_is_what_is_saved(train, small_dataset, tmp_path, capsys):
    run = train(tmp_path / "run", 8, "--average-decay", 0.9, "--eval-every", 8, "--learning-rate", 0.01)
    reported = [r["val_loss"] for r in run.metrics() if "val_loss" in r][-1]
    capsys.readouterr()
    call = ["eval", str(run.path), "--task", "val", "--data", str(small_dataset), "--json", "--device", "cpu"]
    assert main([*call, "--precision", "fp32"]) == 0
    assert json.loads(capsys.readouterr().out)["val_loss"] == pytest.approx(reported, rel=1e-6)
    plain = train(tmp_path / "plain", 8, "--eval-every", 8, "--learning-rate", 0.01)
    assert abs([r["val_loss"] for r in plain.metrics() if "val_loss" in r][-1] - reported) > 1e-3


def test_a_run_may_begin_or_end_to_average(train, hashes, tmp_path):
    run = train(tmp_path / "run", 2)
    train(tmp_path / "run", 4, "--average-decay", 0.9, "--override")
    train(tmp_path / "run", 6, "--override")
    whole = train(tmp_path / "whole", 6)
    assert hashes(run.path, 6) == hashes(whole.path, 6)  # what was averaged between left no trace


@pytest.mark.parametrize("wrong", ["1", "-0.1", "nan"])
def test_a_decay_that_cannot_be_is_refused(refused, tmp_path, wrong):
    assert "--average-decay is" in refused("--out", tmp_path / "run", "--average-decay", wrong)


def test_the_weights_come_back_whatever_happens():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=10))
    average = WeightAverage(model, 0.9)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    with contextlib.suppress(KeyboardInterrupt), average.in_place():
        assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
        raise KeyboardInterrupt
    assert all(torch.equal(p, b + 1) for p, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(v, b) for v, b in zip(average.values.values(), before, strict=True))
    average.update(step=1)  # a sixteenth of the old stays
    torch.testing.assert_close(next(iter(average.values.values())), before[0] + 15 / 16)
