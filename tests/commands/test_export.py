import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.model.layout import OwnLayout
from myna.model.network import NETWORKS, NetworkKind

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, vocab_size=257)


class OwnGPT(GPT):
    """A network that no other program has."""

    layout = OwnLayout()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    GPT(CONFIG).save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return tmp_path / "model"


def export(*args: object, to: str = "hugging-face") -> int:
    return main(["export", *map(str, args), "--to", to])


def test_transformers_loads_what_is_exported(model_folder, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "out").mkdir()  # an empty folder will do
    assert export(model_folder, "--out", tmp_path / "out") == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    ids = torch.arange(10)[None]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, GPT.from_pretrained(model_folder)(ids))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("naïve")["input_ids"] == Tokenizer.bytes().encode("naïve")


def test_a_place_that_holds_something_else_is_left_alone(model_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file", model_folder):
        assert export(model_folder, "--out", out) == 2
        err = capsys.readouterr().err
        assert f"--out {out} holds something else" in err
        assert err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_network_without_an_exporter_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "own", NetworkKind(OwnGPT, config=GPTConfig))
    OwnGPT(CONFIG).save_pretrained(tmp_path / "own", Tokenizer.bytes())
    assert export(tmp_path / "own", "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "has no exporter" in err
    assert "load with Myna only" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_of_an_unknown_network_is_named(model_folder, tmp_path, capsys):
    config = (model_folder / "config.json").read_text()
    (model_folder / "config.json").write_text(
        config.replace('"model_type": "gpt2"', '"model_type": "myna-gpt9"')
    )
    assert export(model_folder, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "no network 'gpt9'" in err
    assert err.count("\n") == 1


def test_a_model_without_a_tokenizer_asks_for_one(model_folder, tmp_path, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model_folder / name).unlink()
    assert export(model_folder, "--out", tmp_path / "out") == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert export(model_folder, "--out", tmp_path / "out", "--tokenizer", "bytes") == 0
    assert (tmp_path / "out" / "tokenizer.json").exists()


@pytest.fixture
def bpe_folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train([f"{n} bottles on the wall {n * n}" for n in range(50)], 270)
    GPT(dataclasses.replace(CONFIG, vocab_size=270)).save_pretrained(tmp_path / "bpe", tokenizer)
    return tmp_path / "bpe"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("to", "out", "files"),
    [
        ("gguf", "folder", ["model.gguf"]),
        ("gguf", "new/model-7.gguf", None),
        ("llmc", "folder", ["gpt2_tokenizer.bin", "model.bin"]),
    ],
)
def test_other_programs_files_are_written(bpe_folder, tmp_path, capsys, to, out, files, dtype):
    if to == "gguf":
        pytest.importorskip("gguf")
    place = tmp_path / out
    assert export(bpe_folder, "--out", place, "--dtype", dtype, to=to) == 0
    assert f"{place}: 7,824 parameters for {to}, {dtype}, from {bpe_folder}" in capsys.readouterr().out
    if files is None:
        assert place.read_bytes()[:4] == b"GGUF"
        assert [path.name for path in place.parent.iterdir()] == [place.name]
    else:
        assert sorted(path.name for path in place.iterdir()) == files
    assert export(bpe_folder, "--out", place, to=to) == 2
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("to", "flags", "says"),
    [
        ("ggfu", (), "there is no format 'ggfu'; did you mean gguf?"),
        ("llmc", ("--dtype", "fp16"), "--dtype fp16 is no type of llmc; give fp32 or bf16"),
        ("hugging-face", ("--dtype", "bf16"), "--dtype bf16 is no type of hugging-face; give fp32"),
        ("gguf", ("--tokenizer", "bytes"), "GGUF cannot hold the tokenizer bytes: it has no merges"),
    ],
)
def test_what_a_format_has_not_is_a_line_and_nothing_is_left(model_folder, tmp_path, capsys, to, flags, says):
    if to == "gguf":
        pytest.importorskip("gguf")
    for out in ("new/folder", "new/x.gguf"):
        assert export(model_folder, "--out", tmp_path / out, *flags, to=to) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_package_that_is_not_installed_is_named(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert export(model_folder, "--out", tmp_path / "out", to="gguf") == 2
    assert "--to gguf needs gguf; install it: pip install 'myna[gguf]'" in capsys.readouterr().err
