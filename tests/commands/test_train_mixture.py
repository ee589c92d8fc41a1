"""`myna train --data A:0.7 --data B:0.3`: what is trained, recorded, kept for a resume, and refused."""

import json
import math
import shutil

import pytest

from myna import Tokenizer
from myna.cli import main
from myna.commands import train_end
from myna.data.prepare import prepare
from myna.errors import UsageError
from myna.evaluate.curves import read_curves

WEIGHTS = ("small:0.7", "other:0.3")


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """It takes longer to draw than these runs take to train."""
    monkeypatch.setattr(train_end, "report", lambda *given: None)


def losses_of(run, key):
    return [record[key] for record in run.metrics() if key in record]


def test_each_datasets_loss_and_their_mean_are_recorded(train, mixture, tmp_path, capsys):
    run = train(tmp_path / "run", 4, *mixture(*WEIGHTS), "--eval-every", 2)
    said = capsys.readouterr().out
    assert "a mixture of 2 datasets; an epoch is " in said
    assert "small: 70.00% of the windows, " in said
    assert "training tokens, gone through 0.0" in said
    small, other, mean = (losses_of(run, key) for key in ("val_loss/small", "val_loss/other", "val_loss"))
    assert len(mean) == 3
    for of_small, of_other, of_both in zip(small, other, mean, strict=True):
        assert of_both == pytest.approx(0.7 * of_small + 0.3 * of_other, abs=1e-12)
        assert of_small != of_other
    assert list(read_curves(run.path).sources) == ["other", "small"]
    recipe = run.recipe()
    assert recipe["mixture"] == {"other": 0.3, "small": 0.7}
    assert len(recipe["trained_on"]) == 2
    # Each dataset's loss is what `myna eval` finds on it.
    path = str(mixture("other")[1])
    call = ["eval", str(run.path), "--task", "val", "--device", "cpu", "--precision", "fp32", "--json"]
    assert main([*call, "--data", path]) == 0
    assert json.loads(capsys.readouterr().out)["val_loss"] == pytest.approx(other[-1], abs=1e-9)
    assert main(call) == 2
    assert "was trained on 2 datasets" in capsys.readouterr().err


def test_bits_per_byte_are_those_of_the_mixed_text(train, mixture, tmp_path):
    """Of byte tokens nearly every target is a byte, so they follow the loss."""
    run = train(tmp_path / "run", 1, *mixture(*WEIGHTS), "--eval-every", 1)
    for loss, bits in zip(losses_of(run, "val_loss"), losses_of(run, "val_bits_per_byte"), strict=True):
        assert bits == pytest.approx(loss / math.log(2), rel=0.01)


def test_a_single_dataset_is_what_it_was(train, mixture, small_dataset, hashes, tmp_path):
    """With a weight or without; and recipe.json says nothing new."""
    plain = train(tmp_path / "plain", 2, "--eval-every", 1)
    weighted = train(tmp_path / "weighted", 2, "--data", f"{small_dataset}:3", "--eval-every", 1)
    assert hashes(plain.path, 2) == hashes(weighted.path, 2)
    assert plain.recipe() == weighted.recipe()
    assert "mixture" not in plain.recipe()
    assert not [key for record in plain.metrics() for key in record if "/" in key]


def test_the_order_of_the_flags_says_nothing_and_equal_weights_are_equal(train, mixture, hashes, tmp_path):
    one = train(tmp_path / "one", 2, *mixture("small:0.7", "other:0.3"))
    two = train(tmp_path / "two", 2, *mixture("other:3", "small:7"))
    assert hashes(one.path, 2) == hashes(two.path, 2)
    assert one.recipe() == two.recipe()


def test_a_resumed_run_is_bit_equal_and_another_mixture_is_refused(train, mixture, hashes, tmp_path, capsys):
    args = (*mixture(*WEIGHTS), "--checkpoint-every", 5)
    run = train(tmp_path / "run", 10, *args)
    undisturbed = hashes(run.path, 10)
    shutil.rmtree(run.checkpoints / "step_00000010")
    for others, now in (
        (("small:0.6", "other:0.4"), "other:0.4 small:0.6"),
        (("small",), "small"),
    ):
        with pytest.raises(UsageError, match=f"other:0.3 small:0.7, now .*{now}; dataset .*other --out"):
            train(run.path, 10, *mixture(*others), "--checkpoint-every", 5)
    train(run.path, 10, *args)
    assert "resuming after step 5" in capsys.readouterr().out
    assert hashes(run.path, 10) == undisturbed
    train(run.path, 12, *mixture("small"), "--override")
    assert "mixture" not in run.recipe()


def test_another_mixture_is_refused_before_the_first_checkpoint_too(train, mixture, tmp_path):
    run = train(tmp_path / "run", 1, *mixture(*WEIGHTS))
    shutil.rmtree(run.checkpoints)
    run.metrics_path.unlink()
    with pytest.raises(
        UsageError, match=r"begun on other data \(other:0.3 small:0.7, now other:0.5 small:0.5\)"
    ):
        train(run.path, 1, *mixture("small:1", "other:1"))
    train(run.path, 1, *mixture(*WEIGHTS))


def test_a_dataset_of_weight_0_is_validated_only(train, mixture, hashes, tmp_path, capsys):
    alone = train(tmp_path / "alone", 2, *mixture("small"), "--eval-every", 2)
    both = train(tmp_path / "both", 2, *mixture("small:1", "other:0"), "--eval-every", 2)
    assert "training tokens, validated only" in capsys.readouterr().out
    assert hashes(alone.path, 2) == hashes(both.path, 2)
    assert losses_of(both, "val_loss") == losses_of(both, "val_loss/small") == losses_of(alone, "val_loss")
    assert len(losses_of(both, "val_loss/other")) == 2


def test_without_weights_each_counts_by_its_tokens(train, mixture, tmp_path):
    run = train(tmp_path / "run", 1, *mixture("small", "other"))
    shares = run.recipe()["mixture"]
    assert sum(shares.values()) == pytest.approx(1)
    assert 2 < shares["small"] / shares["other"] < 8


def test_sequential_goes_through_each_in_its_own_order(train, mixture, tmp_path, monkeypatch):
    from myna.data.batches import TrainStream

    seen = {}
    windows = TrainStream.windows

    def watched(self, first, count):
        found = windows(self, first, count)
        seen.setdefault(self.split.place, {}).update(zip(range(first, first + count), found, strict=True))
        return found

    monkeypatch.setattr(TrainStream, "windows", watched)
    train(tmp_path / "run", 3, *mixture(*WEIGHTS), "--order", "sequential")
    assert len(seen) == 2
    for starts in seen.values():
        assert all(start == 32 * number for number, start in starts.items())


def test_conversations_can_be_mixed(train, conversations, tmp_path):
    (tmp_path / "again").symlink_to(conversations)
    shape = "--tokenizer from-data --block-size 160 --sequence-length 160 --batch-tokens 1280 --eval-every 2"
    data = ("--data", f"{conversations}:1", "--data", f"{tmp_path / 'again'}:3")
    run = train(tmp_path / "run", 2, *data, *shape.split())
    (first, _), _ = losses_of(run, "val_loss/again"), losses_of(run, "train_loss")
    assert first == pytest.approx(losses_of(run, "val_loss")[0])


# Bad input


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (("small:-1", "other:1"), "the weight is -1; give a number, 0 or more"),
        (("small:nan", "other:1"), "the weight is nan; give a number, 0 or more"),
        (("small:inf", "other:1"), "the weight is inf; give"),
        (
            ("small:0", "other:0.0"),
            "the weights of --data sum to 0; give at least one dataset a weight above 0",
        ),
        (("small:0",), "the weights of --data sum to 0"),
        (
            ("small:0.7", "other"),
            "--data gives other no weight, and the others one; give each a weight, as other:1",
        ),
        (("small:0.7", "small:0.3"), "--data names two folders that are called small ("),
        (("small:0.7", "absent:0.3"), "absent"),
        (("small:0.7", ":0.3"), ""),
    ],
)
def test_a_wrong_mixture_is_a_line_and_leaves_nothing(refused, mixture, tmp_path, named, says):
    assert says in refused("--out", tmp_path / "new" / "run", "--steps", 1, *mixture(*named))
    assert list(tmp_path.iterdir()) == []


def test_a_weight_without_a_folder(refused):
    assert "--data :0.3 names no folder; give FOLDER:WEIGHT" in refused("--steps", 1, "--data", ":0.3")


def test_two_tokenizers_or_two_kinds_are_refused(refused, mixture, conversations, tmp_path):
    (tmp_path / "text.txt").write_text("a text of some length, to be cut in two\n" * 50)
    prepare(
        [str(tmp_path / "text.txt")], tmp_path / "learned",
        Tokenizer.train(["a text of some length"], vocab_size=260), workers=1,
    )  # fmt: skip
    out = ("--out", tmp_path / "run", "--steps", 1, "--tokenizer")
    for tokenizer in ("bytes", "from-data"):
        said = refused(*out, tokenizer, *mixture("small:1"), "--data", f"{tmp_path / 'learned'}:1")
        assert "another tokenizer" in said or "different tokenizers; a mixture has one" in said
    prepare([str(tmp_path / "text.txt")], tmp_path / "text", Tokenizer.load(conversations), workers=1)
    data = ("--data", f"{conversations}:1", "--data", f"{tmp_path / 'text'}:1")
    assert "one holds conversations and the other text" in refused(*out, "from-data", *data)
    assert not (tmp_path / "run").exists()
