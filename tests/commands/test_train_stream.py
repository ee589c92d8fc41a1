"""`myna train --fim-rate`: the vocabulary of the run, what a resume finds, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from myna import Tokenizer
from myna.cli import main
from myna.data.fill import FillStream
from myna.data.prepare import prepare
from myna.text.fim import with_fim_tokens
from myna.train.step import Stepper

RATE = ("--fim-rate", 0.5)


@pytest.fixture
def targets(monkeypatch):
    """The targets of every step that is made, as a list that fills up."""
    seen = []
    step = Stepper.step

    def watched(self, number, batches, **options):
        def noted():
            for inputs, wanted in batches:
                seen.append(wanted.numpy().copy())
                yield inputs, wanted

        return step(self, number, noted(), **options)

    monkeypatch.setattr(Stepper, "step", watched)
    return seen


def test_the_run_has_three_more_tokens_and_is_scored_on_its_data(train, tmp_path, small_dataset, capsys):
    run = train(tmp_path / "run", 3, *RATE)
    said = capsys.readouterr().out
    assert "of the documents have their middle at their end" in said
    assert "measured on the first 64 windows" in said
    folder = run.checkpoints / "step_00000003"
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 260
    assert Tokenizer.load(folder) == with_fim_tokens(Tokenizer.bytes())
    assert run.recipe()["fim_rate"] == 0.5
    call = ["eval", str(run.path), "--task", "val", "--device", "cpu", "--json"]
    assert main(call) == 0
    by_the_run = json.loads(capsys.readouterr().out)
    assert main([*call, "--data", str(small_dataset)]) == 0
    assert json.loads(capsys.readouterr().out) == by_the_run
    assert by_the_run["val_bits_per_byte"] < 8.5


def test_data_of_another_tokenizer_does_not_do(train, tmp_path, capsys):
    """What the model's tokenizer has besides must be all that is different."""
    (tmp_path / "text.txt").write_text("a text of some length, to be cut in two\n" * 50)
    learned = Tokenizer.train(["a text of some length"], vocab_size=260)
    prepare([str(tmp_path / "text.txt")], tmp_path / "other", learned, workers=1)
    run = train(tmp_path / "run", 1, *RATE)
    assert main(["eval", str(run.path), "--task", "val", "--data", str(tmp_path / "other")]) == 2
    assert "was made with another tokenizer than the model's" in capsys.readouterr().err


def test_data_that_has_the_tokens_is_used_as_it_is(train, tmp_path):
    tokenizer = with_fim_tokens(Tokenizer.bytes())
    (tmp_path / "text.txt").write_text("one line and another\n" * 200)
    prepare([str(tmp_path / "text.txt")], tmp_path / "data", tokenizer, workers=1)
    more = ("--data", tmp_path / "data", "--tokenizer", "from-data")
    run = train(tmp_path / "run", 2, *RATE, *more)
    assert Tokenizer.load(run.checkpoints / "step_00000002") == tokenizer
    train(tmp_path / "run", 3, "--override", *more)  # without a rate: the vocabulary is the same


def test_other_projects_data_is_scored_on_too(train, tmp_path, capsys):
    (tmp_path / "npy").mkdir()
    ids = np.array([256, *b"some text that is long enough for a window or two, and then a bit"] * 40, "<u2")
    for name in ("edufineweb_train_000001.npy", "edufineweb_val_000000.npy"):
        np.save(tmp_path / "npy" / name, ids)
    run = train(tmp_path / "run", 2, *RATE, "--data", tmp_path / "npy", "--tokenizer", "bytes")
    assert main(["eval", str(run.path), "--task", "val", "--device", "cpu"]) == 0


def test_a_resumed_run_is_bit_equal(train, tmp_path, hashes, targets):
    """What came after step 10 is lost, as in a crash before it was written; the batches are the same again."""
    run = train(tmp_path / "run", 20, *RATE, "--checkpoint-every", 10)
    undisturbed, seen = hashes(run.path, 20), [*targets]
    assert any((batch > 256).any() for batch in seen)  # special tokens are among the targets
    shutil.rmtree(run.checkpoints / "step_00000020")
    targets.clear()
    train(tmp_path / "run", 20, *RATE, "--checkpoint-every", 10)
    assert hashes(run.path, 20) == undisturbed
    assert len(targets) == len(seen) // 2
    assert all(np.array_equal(*pair) for pair in zip(targets, seen[-len(targets) :], strict=True))


def test_without_a_rate_nothing_is_rearranged(train, tmp_path, monkeypatch):
    monkeypatch.setattr(FillStream, "batch", None)
    run = train(tmp_path / "run", 2)
    assert json.loads((run.checkpoints / "step_00000002" / "config.json").read_text())["vocab_size"] == 257


@pytest.mark.parametrize(
    ("rate", "says"),
    [("-0.1", "--fim-rate is -0.1; give 0 to 1"), ("1.1", "give 0 to 1"), ("nan", "give a finite number")],
)
def test_a_rate_that_cannot_be(refused, tmp_path, rate, says):
    assert says in refused("--out", tmp_path / "run", "--steps", 1, "--fim-rate", rate)
    assert not (tmp_path / "run").exists()


def test_a_rate_that_changes_the_runs_vocabulary(train, refused, tmp_path):
    train(tmp_path / "with", 1, *RATE)
    train(tmp_path / "without", 1)
    said = refused("--out", tmp_path / "with", "--steps", 1)
    assert "--fim-rate was 0.5, now 0.0" in said
    assert "--override" in said
    said = refused("--out", tmp_path / "with", "--steps", 2, "--override")
    assert "--fim-rate was 0.5, now 0: the run's vocabulary would change" in said
    assert "give a rate over 0, or another --out" in said
    said = refused("--out", tmp_path / "without", "--steps", 2, *RATE, "--override")
    assert "--fim-rate was 0, now 0.5" in said
    recipe = json.loads((tmp_path / "without" / "recipe.json").read_text())
    del recipe["fim_rate"]  # a run of before there was a rate
    (tmp_path / "without" / "recipe.json").write_text(json.dumps(recipe))
    assert "--fim-rate was 0.0, now 0.5" in refused("--out", tmp_path / "without", "--steps", 1, *RATE)


def test_a_tokenizer_that_is_no_byte_level_bpe(refused, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "</s>": 1, "one": 2, "line": 3, **{f"w{n}": n + 4 for n in range(60)}}
    given = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    given.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    given.add_special_tokens(["</s>"])
    (tmp_path / "t.json").write_text(given.to_str())
    (tmp_path / "text.txt").write_text("one line w1 w2 w3\n" * 200)
    prepare([str(tmp_path / "text.txt")], tmp_path / "data", Tokenizer.load(tmp_path / "t.json"), workers=1)
    data = ("--data", tmp_path / "data", "--tokenizer", "from-data")
    said = refused("--out", tmp_path / "run", "--steps", 1, *data, *RATE)
    assert "--fim-rate 0.5 needs byte-level BPE" in said
    assert not (tmp_path / "run").exists()
