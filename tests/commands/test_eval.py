import bz2
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from myna.cli import main
from myna.data.prepare import prepare
from myna.data.shards import open_dataset
from myna.model.checkpoint import save_checkpoint
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.weights import config_files
from myna.run import Run
from myna.text.tokenizer import Tokenizer

ITEM = {"ctx": "A man sits. he", "ctx_a": "A man sits.", "ctx_b": "he", "activity_label": "Sitting"}
TEXT = "".join(f"Line {n} of a text that is long enough to be cut in two.\n" for n in range(60))


def small_model(block_size: int = 32) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=block_size, vocab_size=257)).eval()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    small_model().save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return tmp_path / "model"


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    prepare([str(tmp_path / "text.txt")], tmp_path / "data", Tokenizer.bytes(), workers=1)
    return tmp_path / "data"


@pytest.fixture
def hellaswag_file(tmp_path: Path) -> Path:
    endings = ["rows.", "sinks a lot.", "waves to all of his many friends.", "is."]
    lines = [json.dumps(ITEM | {"label": n % 4, "endings": endings}) for n in range(8)]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))
    return tmp_path / "h.jsonl"


@pytest.fixture
def trained_run(tmp_path: Path, data_folder: Path, monkeypatch) -> Run:
    """A run in runs/tiny, whose recipe tells that it trained on the dataset in ./data."""
    monkeypatch.chdir(tmp_path)
    run, model, tokenizer = Run("runs/tiny"), small_model(), Tokenizer.bytes()
    save_checkpoint(
        run.checkpoints / "step_00000005",
        model,
        files=config_files(model, tokenizer),
        weights=model.state_dict(),
        tokenizer=tokenizer,
        tensors={},
        state={},
    )
    told = {"path": "data", "corpus": None, "tokenizer": None, "identity": open_dataset("data").identity}
    run.write_recipe({"name": "tiny", "sequence_length": 16, "trained_on": [told]})
    return run


def evaluate(*args: object) -> int:
    return main(["eval", *map(str, args), "--device", "cpu", "--precision", "fp32"])


def test_validation_as_json(model_folder, data_folder, capsys):
    assert evaluate(model_folder, "--task", "val", "--data", data_folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    ids = torch.from_numpy(open_dataset(data_folder).val.read(0, open_dataset(data_folder).val.n_tokens))
    model, nats = GPT.from_pretrained(model_folder), 0.0
    for start in range(0, len(ids) - 1, 32):
        window = ids[start : start + 33]
        with torch.no_grad():
            logits = model(window[None, :-1])[0].double()
        nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    assert found["val_loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-6)
    # One document: its end-of-text id comes first and is no target, so every target is one byte of text.
    assert found["val_bits_per_byte"] == pytest.approx(found["val_loss"] / math.log(2), rel=1e-9)
    assert found["val_targets"] == found["val_text_bytes"] == len(ids) - 1
    assert found["sequence_length"] == 32


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_score_that_is_not_finite_is_a_line_and_exit_2(
    model_folder, data_folder, hellaswag_file, form, capsys
):
    model = GPT.from_pretrained(model_folder)
    with torch.no_grad():
        model.h[0].mlp.c_proj.bias[0] = float("nan")
    model.save_pretrained(model_folder)
    for task, data, key in (("val", data_folder, "val_loss"), ("hellaswag", hellaswag_file, "hellaswag_acc")):
        assert evaluate(model_folder, "--task", task, "--data", data, *form) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert f"{key} is nan: the model's output is not finite" in said.err.splitlines()[-1]


def test_a_dataset_that_says_more_ids_than_its_tokenizer_has_is_refused(
    model_folder, data_folder, tmp_path, capsys
):
    """Ids from 257 on have rows in the embedding, which stand for nothing."""
    shutil.copytree(data_folder, tmp_path / "edited")
    info = json.loads((tmp_path / "edited" / "dataset.json").read_text())
    (tmp_path / "edited" / "dataset.json").write_text(json.dumps(info | {"vocab_size": 300}))
    assert evaluate(model_folder, "--task", "val", "--data", tmp_path / "edited") == 2
    assert "says vocab_size 300" in capsys.readouterr().err


def test_bits_per_byte_is_in_the_unit_of_compressors(model_folder, data_folder, capsys):
    """A byte model that knows nothing spends near log2(257) bits on a byte; bz2 over the same bytes far fewer."""
    assert evaluate(model_folder, "--task", "val", "--data", data_folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    val = open_dataset(data_folder).val
    text = Tokenizer.bytes().decode_bytes(val.read(1, val.n_tokens - 1).tolist())
    assert found["val_text_bytes"] == len(text) == val.n_bytes
    assert found["val_bits_per_byte"] == pytest.approx(math.log2(257), abs=0.1)
    assert 8 * len(bz2.compress(text, 9)) / len(text) < found["val_bits_per_byte"]


def test_a_run_is_scored_as_it_was_trained(trained_run, capsys):
    """Its sequence length, and its dataset."""
    assert evaluate("runs/tiny", "--task", "val", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sequence_length"], found["data"]) == (16, "data")


def test_a_run_says_what_it_expects_where(trained_run, capsys):
    recipe = trained_run.recipe()
    (told,) = recipe["trained_on"]
    wrong = told | {"identity": "0" * 64}
    cases = [
        ([wrong], f"identity {'0' * 64}, and data has {told['identity']}"),
        (
            [told | {"path": "gone"}],
            f"runs/tiny was trained on gone, which is not here (its identity is {told['identity']})",
        ),
        ([told, told | {"path": "more"}], "2 datasets (data, more)"),
        ([], "0 datasets"),
        ({"path": "data"}, "no list of datasets"),
        ([{"path": "data"}], "no list of datasets"),
    ]
    for entries, words in cases:
        trained_run.write_recipe(recipe | {"trained_on": entries})
        assert evaluate("runs/tiny", "--task", "val") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert "--data DIR" in err
        assert err.count("\n") == 1
    trained_run.write_recipe(recipe | {"trained_on": [wrong]})
    assert evaluate("runs/tiny", "--task", "val", "--data", "data") == 0


def test_an_older_run_keeps_its_data_in_the_usual_place(trained_run, capsys):
    """Its recipe does not tell what it was trained on; a checkpoint may."""
    trained_run.write_recipe({"name": "tiny", "sequence_length": 16})
    assert evaluate("runs/tiny", "--task", "val") == 2
    assert "--task val needs --data DIR" in capsys.readouterr().err
    shutil.move("data", "moved")
    shutil.move("moved", "data/tiny")
    identity = open_dataset("data/tiny").identity
    checkpoint = trained_run.checkpoints / "step_00000005"
    (checkpoint / "manifest.json").unlink()
    for state, code in (({"dataset": identity}, 0), ({"dataset": "0" * 64}, 2)):
        (checkpoint / "train_state.json").write_text(json.dumps(state))
        assert evaluate(checkpoint.rename("as-it-was"), "--task", "val", "--data", "data/tiny") == 0
        Path("as-it-was").rename(checkpoint)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("myna.model.open.newest_sound", lambda *_: checkpoint)
            assert evaluate("runs/tiny", "--task", "val") == code
    assert "--data DIR" in capsys.readouterr().err


def test_validation_for_people(model_folder, data_folder, capsys):
    assert evaluate(model_folder, "--task", "val", "--data", data_folder, "--sequence-length", 8) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert float(lines["val_loss"]) == pytest.approx(math.log(257), abs=0.1)
    assert lines["sequence_length"] == "8"


def test_hellaswag_as_json(model_folder, hellaswag_file, capsys):
    for rendering in ("lecture", "harness"):
        call = (model_folder, "--task", "hellaswag", "--data", hellaswag_file, "--rendering", rendering)
        assert evaluate(*call, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["hellaswag_items"] == 8
        # Near-uniform weights: the shortest ending has the largest sum, and each is right in a quarter of the items.
        assert [found[f"hellaswag_{name}"] for name in ("acc", "acc_token", "acc_char")] == [0.25] * 3
        errors = [found[f"hellaswag_{name}_stderr"] for name in ("acc", "acc_token", "acc_char")]
        assert errors == [pytest.approx((0.25 * 0.75 / 8) ** 0.5)] * 3
        assert found["hellaswag_chance"] == 0.25


def test_hellaswag_for_people(model_folder, hellaswag_file, capsys):
    assert evaluate(model_folder, "--task", "hellaswag", "--data", hellaswag_file) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["hellaswag_acc"] == lines["hellaswag_acc_char"] == "0.2500 ± 0.1531 (chance 0.2500)"
    assert lines["hellaswag_items"] == "8"
    assert not [key for key in lines if "stderr" in key]


def test_data_of_another_tokenizer_is_refused(tmp_path, model_folder, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    other = Tokenizer.train([TEXT], vocab_size=257, pattern="gpt4")  # as many ids, and other ones
    prepare([str(tmp_path / "text.txt")], tmp_path / "other", other, workers=1)
    assert evaluate(model_folder, "--task", "val", "--data", tmp_path / "other") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "another tokenizer" in err
    assert err.count("\n") == 1


def test_what_is_missing_is_named_in_a_line(tmp_path, model_folder, data_folder, hellaswag_file, capsys):
    no_label = tmp_path / "test.jsonl"
    no_label.write_text(json.dumps(ITEM | {"endings": ["a", "b", "c", "d"]}))
    cases = [
        (("--task", "val"), "--task val needs --data"),
        (("--task", "val", "--data", tmp_path / "absent"), "absent"),
        (("--task", "hellaswag", "--data", tmp_path / "absent"), "absent: No such file"),
        (("--task", "hellaswag", "--data", no_label), f"{no_label}, line 1: no label"),
        (("--task", "val", "--data", data_folder, "--sequence-length", 33), "--sequence-length is 33"),
        (("--task", "val", "--data", data_folder, "--tokenizer", "gpt2"), "50257 ids and the model 257"),
        (("--task", "valid", "--data", data_folder), "no task 'valid'; did you mean val?"),
        (("--task", "val:test", "--data", data_folder), "--task val has no parts"),
        (
            ("--task", "val", "--data", data_folder, "--rendering", "lecture"),
            "--rendering is a flag of --task hellaswag, and this is --task val",
        ),
    ]
    for flags, words in cases:
        assert evaluate(model_folder, *flags) == 2, words
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert err.count("\n") == 1
