"""`myna train --init MODEL`: another run's weights, a fresh optimizer, and rows for new tokens."""

import json
import shutil

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.commands.train_init import FINE_TUNING
from myna.model.open import open_model
from myna.recipes import named
from myna.run import Run
from myna.text.chat import with_chat_tokens

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=160, vocab_size=257)
OPTIONS = """
    shakespeare-char --batch-tokens 640 --sequence-length 160 --micro-batch 4 --warmup-steps 1 --precision fp32
    --device cpu --average-decay 0 --no-compile --eval-every 1 --sample-every 0 --checkpoint-every 1
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model as Hugging Face would leave it: no run, no manifest."""
    folder = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(5)
    model = GPT(SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.wte.weight[257:].zero_()
    model.save_pretrained(folder, Tokenizer.bytes())
    return folder


@pytest.fixture
def start(base, tmp_path):
    """Calls `myna train --init base` with more arguments; the exit code."""

    def call(*more, out="run", init=base):
        return main(
            ["train", *OPTIONS.split(), "--init", str(init), "--out", str(tmp_path / out), *map(str, more)]
        )

    return call


def weights(folder):
    return {name: tensor.detach() for name, tensor in open_model(folder).model.named_parameters()}


def test_it_begins_as_that_model(start, base, small_dataset, tmp_path, capsys):
    assert start("--data", small_dataset, "--steps", 1) == 0
    said = capsys.readouterr().out
    rate = named("shakespeare-char").learning_rate * FINE_TUNING
    assert f"starting from {base}; peak learning rate {rate:g}" in said
    first, *_ = Run(tmp_path / "run").metrics()
    of_base = ["eval", str(base), "--task", "val", "--data", str(small_dataset), "--json"]
    assert main([*of_base, "--device", "cpu", "--precision", "fp32"]) == 0
    assert first["val_loss"] == pytest.approx(json.loads(capsys.readouterr().out)["val_loss"], abs=1e-9)
    recipe = Run(tmp_path / "run").recipe()
    assert (recipe["n_layer"], recipe["block_size"], recipe["learning_rate"]) == (2, 160, rate)


def test_new_tokens_get_the_mean_of_all_others(start, base, conversations, tmp_path, capsys):
    assert (
        start("--data", conversations, "--steps", 1, "--learning-rate", 1e-9, "--optimizer.weight-decay", 0)
        == 0
    )
    assert "with 2 new tokens" in capsys.readouterr().out
    before, after = weights(base), weights(tmp_path / "run")
    rows, grown = before["wte.weight"][:257], after["wte.weight"]
    assert open_model(tmp_path / "run").tokenizer == with_chat_tokens(Tokenizer.bytes())
    assert open_model(tmp_path / "run").model.config.vocab_size == 259
    torch.testing.assert_close(grown[:257], rows, atol=1e-6, rtol=0)
    torch.testing.assert_close(grown[257:259], rows.mean(dim=0).expand(2, -1), atol=1e-6, rtol=0)
    assert not grown[259:].any()
    for name in before.keys() - {"wte.weight"}:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


def test_new_tokens_alone(start, base, conversations, tmp_path, hashes):
    call = ("--data", conversations, "--steps", 4, "--train-only", "new-tokens", "--learning-rate", 0.01)
    assert start(*call) == 0
    before, after = weights(base), weights(tmp_path / "run")
    for name in before.keys() - {"wte.weight"}:
        assert torch.equal(after[name], before[name]), name
    rows, grown = before["wte.weight"], after["wte.weight"]
    assert torch.equal(grown[:257], rows[:257])
    assert (grown[257:259] - rows[:257].mean(dim=0)).abs().min() > 1e-4
    # and a run that goes on does the same, the first model being gone
    whole = hashes(tmp_path / "run", 4)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000004")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000003")
    moved = base.rename(tmp_path / "moved")
    try:
        assert start(*call) == 0
    finally:
        moved.rename(base)
    assert hashes(tmp_path / "run", 4) == whole


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--n-layer", 3], "--n-layer is 3, and {base} has 2"),
        (["--block-size", 320], "--block-size is 320"),
        (["--tokenizer", "gpt2"], "--tokenizer is gpt2"),
        (["--network.gelu", "exact"], "with --init the model decides"),
        (["--train-only", "new-tokens"], "the data has no token that {base} does not know"),
        (
            ["--train-only", "new-tokens", "--optimizer.weight-decay", 0.1],
            "--optimizer.weight-decay would change",
        ),
        (["--train-only", "new-tokens", "--shard", "fsdp"], "--shard fsdp cannot train new tokens alone"),
        (["--sequence-length", 320, "--batch-tokens", 640], "--sequence-length 320 is over the model's 160"),
    ],
)
def test_what_contradicts_the_model_is_refused(start, base, small_dataset, tmp_path, capsys, more, what):
    assert start("--data", small_dataset, "--steps", 1, *more) == 2
    said = capsys.readouterr().err
    assert what.format(base=base) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_data_of_another_tokenizer_is_refused(start, small_dataset, conversations, tmp_path, capsys):
    other = tmp_path / "other"
    small = Tokenizer.train(["some text, some more text"] * 3, 258)
    GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=160, vocab_size=258)).save_pretrained(
        other, small
    )
    assert start("--data", small_dataset, "--steps", 1, init=other) == 2
    assert "was made with another tokenizer than" in capsys.readouterr().err
    # a model that knows more than the data is no extension either
    assert start("--data", conversations, "--steps", 1, out="chat") == 0
    assert start("--data", small_dataset, "--steps", 1, init=tmp_path / "chat") == 2
    assert "prepare it with --tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (
            ["chat-pydoc"],
            "chat-pydoc starts from runs/pydoc, which is not there; train it first with `myna train pydoc`",
        ),
        (["pydoc", "--init", "nowhere/such/model"], "nowhere/such/model is no model"),
        (["pydoc", "--init", ""], "--init is empty"),
        (["pydoc", "--train-only", "new-tokens"], "--train-only new-tokens needs --init MODEL"),
        (["pydoc", "--tokenizer", "from-init"], "--tokenizer from-init needs --init MODEL"),
    ],
)
def test_a_model_that_is_not_there(call, what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *call]) == 2
    said = capsys.readouterr().err
    assert what in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_without_new_tokens_cannot_go_on_with_them_alone(start, small_dataset, tmp_path, capsys):
    assert start("--data", small_dataset, "--steps", 1) == 0
    assert start("--data", small_dataset, "--steps", 2, "--override", "--train-only", "new-tokens") == 2
    assert "began without new tokens; leave it out" in capsys.readouterr().err


def test_another_model_is_another_run(start, base, small_dataset, tmp_path, capsys):
    assert start("--data", small_dataset, "--steps", 1) == 0
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    assert start("--data", small_dataset, "--steps", 1, init=copy) == 2
    assert "--init was" in capsys.readouterr().err


def test_the_help_of_a_recipe_needs_no_model(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        main(["train", "chat-pydoc", "--help"])
    assert ending.value.code == 0
    assert "--train-only" in capsys.readouterr().out
