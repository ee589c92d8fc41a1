"""HellaSwag's official file: fetched once where it is not given, verified, kept in the user's cache."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from myna.cli import main
from myna.evaluate import hellaswag
from myna.files import cache_folder
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

ITEM = {"ctx": "A man sits. he", "endings": ["rows.", "sinks.", "waves.", "is."], "label": 1}
CONTENT = "".join(json.dumps(ITEM | {"ind": n}) + "\n" for n in range(3)).encode()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=32, vocab_size=257)).save_pretrained(
        tmp_path / "model", Tokenizer.bytes()
    )
    return tmp_path / "model"


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch):
    """Sets the address, and the hash and size, of the official file."""

    def point_to(url: str, content: bytes = CONTENT) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        file = dataclasses.replace(hellaswag.OFFICIAL, url=url, n_bytes=len(content), sha256=sha256)
        monkeypatch.setattr(hellaswag, "OFFICIAL", file)

    return point_to


def scored(model: Path, capsys) -> dict:
    assert main(["eval", str(model), "--task", "hellaswag", "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_eval_fetches_it_once(serving, model, official, capsys):
    cached = cache_folder() / "evaluation" / "hellaswag_val.jsonl"
    with serving(CONTENT) as (address, asked):
        official(address)
        found = scored(model, capsys)
        assert (found["hellaswag_items"], found["data"]) == (3, str(cached))
        assert scored(model, capsys) == found
        assert asked == ["/hellaswag_val.jsonl"]
        cached.write_bytes(CONTENT.replace(b"rows", b"ROWS"))  # as many bytes, and other ones
        assert scored(model, capsys) == found
        assert len(asked) == 2
    assert cached.read_bytes() == CONTENT
    scored(model, capsys)  # without the server, too


def test_training_fetches_it(serving, official, train, tmp_path, capsys):
    with serving(CONTENT) as (address, asked):
        official(address)
        run = train(tmp_path / "run", 1, "--hellaswag", "auto", "--hellaswag-every", 1)
        assert len(asked) == 1
    assert [record["hellaswag_items"] for record in run.metrics() if "hellaswag_items" in record] == [3, 3]
    assert "HellaSwag items" not in capsys.readouterr().out
    train(tmp_path / "small", 1, "--hellaswag", "auto", "--block-size", 16, "--sequence-length", 16)
    assert "3 of 3 HellaSwag items are longer than the model's 16 positions" in capsys.readouterr().out


def test_another_file_in_its_place_is_refused(serving, model, official, capsys):
    with serving(b"<html>log in</html>") as (address, _):
        official(address)
        assert main(["eval", str(model), "--task", "hellaswag"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "not the published file" in err
    assert list(cache_folder().rglob("hellaswag*")) == []


@pytest.mark.parametrize("command", ["eval", "train"])
def test_without_a_network_its_address_is_named(serving, command, model, official, refused, tmp_path, capsys):
    with serving(CONTENT) as (address, _):
        official(address)
    if command == "train":
        err = refused("--hellaswag", "auto", "--out", tmp_path / "run", "--steps", 1)
        assert not (tmp_path / "run").exists()
    else:
        assert main(["eval", str(model), "--task", "hellaswag"]) == 2
        err = capsys.readouterr().err
    assert f"cannot download {address}" in err
    assert "give a local file" in err
    assert err.count("\n") == 1


def test_what_is_pinned_is_the_official_file():
    file = hellaswag.OFFICIAL
    assert file.url == "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl"
    assert (file.n_bytes, len(file.sha256)) == (12_246_618, 64)


@pytest.mark.network
def test_the_official_file_is_there():
    assert len(hellaswag.read_items(hellaswag.OFFICIAL.fetched())) == 10_042
