"""The door for JSON: whatever is wrong with a file is one line, in each place where one is read."""

import json
import shutil
from pathlib import Path

import pytest

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.errors import CheckpointError, DataError
from myna.model.checkpoint import load_train_files
from myna.parsing import MOST_NESTED, parse_json, read_object

DEEP = b"[" * 200_000
# Python reads it, and fails when it is compared, printed or written.
DEEPER_THAN_USED = b'{"model": ' + b"[" * 900 + b"]" * 900 + b"}"
LONG_NUMBER = b'{"n_layer": ' + b"9" * 5000 + b"}"
NOT_UTF8 = b'{"a": "caf\xe9"}'
BAD = {
    "deep": DEEP,
    "deeper": DEEPER_THAN_USED,
    "number": LONG_NUMBER,
    "bytes": NOT_UTF8,
    "cut": b'{"a": 1',
    "empty": b"",
    "null": b"null",
}


def test_what_is_json_is_read():
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, NaN, null], "a": "\\ud83d"}') == {"a": "\ud83d"}
    nested = b"[" * MOST_NESTED + b"]" * MOST_NESTED
    assert json.dumps(parse_json(nested)).encode() == nested
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(b"[" + nested + b"]")


@pytest.mark.parametrize("bad", [BAD[name] for name in BAD if name != "null"])
def test_what_is_none_is_one_kind_of_error_in_a_line(bad):
    with pytest.raises(ValueError, match=r".") as refused:
        parse_json(bad)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", BAD)
def test_a_file_is_refused_with_the_callers_kind_and_advice(name, tmp_path):
    (tmp_path / "a.json").write_bytes(BAD[name])
    with pytest.raises(DataError, match=r"a\.json .*; restore it$"):
        read_object(tmp_path / "a.json", DataError, "restore it")


def test_a_file_that_is_not_there_is_told_by_the_caller_or_the_system(tmp_path):
    with pytest.raises(DataError, match=r"^no recipe$"):
        read_object(tmp_path / "a.json", DataError, "", missing="no recipe")
    with pytest.raises(DataError, match="No such file"):
        read_object(tmp_path / "a.json", DataError, "")
    with pytest.raises(DataError, match="Is a directory"):
        read_object(tmp_path, DataError, "", missing="no recipe")


@pytest.fixture(scope="module")
def place(small_dataset, small_run, tmp_path_factory) -> Path:
    """A run of one step, a model as Hugging Face's folder, a dataset, and HellaSwag's file."""
    folder = tmp_path_factory.mktemp("place")
    assert main(["train", *small_run, "--steps", "1", "--out", str(folder / "run")]) == 0
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=32, vocab_size=257))
    network.save_pretrained(folder / "model", Tokenizer.bytes())
    shutil.copytree(small_dataset, folder / "data")
    return folder


READERS = {
    "run/recipe.json": "report run",
    "data/dataset.json": "data show data",
    "data/tokenizer.json": "tokenizer show x --tokenizer data",
    "model/config.json": "sample model --prompt x",
    "model/tokenizer.json": "sample model --prompt x",
    "model/tokenizer_config.json": "tokenizer show x --tokenizer model",
    "model/special_tokens_map.json": "tokenizer show x --tokenizer model",
    "model/model.safetensors.index.json": "sample model --prompt x",
    "ranks/t.tiktoken.json": "tokenizer show x --tokenizer ranks/t.tiktoken",
    "items.jsonl": "eval model --task hellaswag --data items.jsonl",
    "text.jsonl": "prepare text.jsonl --out new --tokenizer bytes",
    "run/checkpoints/step_00000001/manifest.json": "sample run --prompt x",
    "new.partial/journal.json": "prepare run --out new --tokenizer bytes",
}


@pytest.mark.filterwarnings("ignore:.*looking at the one before")
@pytest.mark.parametrize("file", READERS)
def test_each_reader_refuses_in_a_line(file, place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    path = Path(file)
    path.parent.mkdir(exist_ok=True)
    if file.startswith("new.partial"):
        Path("new.partial/.lock").touch()
    if file.startswith("ranks"):
        Path("ranks/t.tiktoken").write_bytes(b"")
    if path.name.endswith("index.json"):
        Path("model/model.safetensors").unlink()
    for name, bad in BAD.items():
        path.write_bytes(bad)
        assert main(READERS[file].split()) == 2, name
        said = capsys.readouterr().err
        assert said.startswith("myna "), said
        assert said.count("\n") == 1, (name, said)
        assert len(said) < 500, said
    assert not Path("new").exists()


@pytest.mark.parametrize("name", BAD)
def test_a_training_state_is_refused_in_a_line(name, place, tmp_path):
    shutil.copytree(place / "run" / "checkpoints" / "step_00000001", tmp_path / "step")
    (tmp_path / "step" / "train_state.json").write_bytes(BAD[name])
    with pytest.raises(CheckpointError, match=r"train_state\.json .*; use another checkpoint$"):
        load_train_files(tmp_path / "step")


def test_a_bad_line_of_the_records_is_skipped(place, tmp_path, capsys):
    shutil.copytree(place / "run", tmp_path / "run")
    with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
        for bad in BAD.values():
            file.write(bad + b"\n")
    assert main(["report", str(tmp_path / "run")]) == 0
    assert main(["report", str(place / "run"), "--out", str(tmp_path / "before.png")]) == 0
    before, after = [line for line in capsys.readouterr().out.splitlines() if "run: " in line]
    assert before.partition("run: ")[2] == after.partition("run: ")[2]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("n_layer", "1e999", "n_layer is inf"),
        ("vocab_size", "-1e999", "vocab_size is -inf"),
        ("n_embd", "[[8]]", "n_embd"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_name(key, value, says, place, tmp_path, capsys):
    shutil.copytree(place / "model", tmp_path / "model")
    config = json.loads((place / "model" / "config.json").read_text())
    text = json.dumps(config | {key: "HERE"}).replace('"HERE"', value)
    (tmp_path / "model" / "config.json").write_text(text)
    assert main(["sample", str(tmp_path / "model"), "--prompt", "x"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("value", [["model.safetensors"], {"a": ["x"]}, {"a": {"b": 1}}, "x", {}])
def test_a_weight_map_that_is_none_is_refused(value, place, tmp_path, capsys):
    shutil.copytree(place / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))
    assert main(["sample", str(tmp_path / "model"), "--prompt", "x"]) == 2
    assert "weight_map does not give each tensor the name of its file" in capsys.readouterr().err


def test_a_number_that_is_too_long_is_said_in_our_words():
    with pytest.raises(ValueError, match=r"^a number in it has too many digits$"):
        parse_json(LONG_NUMBER)
