"""`myna tokenizer`: each action does its work, and each wrong call is one line and exit code 2."""

import io
import json
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from myna import Tokenizer
from myna.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text(topics["if"], encoding="utf-8")
    (folder / "b.md").write_text(topics["lambda"] + " naïve 中文 😀", encoding="utf-8")
    (folder / "c.jsonl").write_text(json.dumps({"text": topics["assert"]}) + "\n", encoding="utf-8")
    return folder


def test_train(corpus: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "made" / "here"
    assert main(["tokenizer", "train", str(corpus), "--vocab-size", "400", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "400 ids (256 bytes, 143 merges, <|endoftext|>)" in said
    assert "unique pre-tokens" in said
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    tok = Tokenizer.load(out)
    texts = [topics["if"], topics["lambda"] + " naïve 中文 😀", topics["assert"]]
    assert tok.sha256 == Tokenizer.train(texts, 400).sha256


def test_train_writes_ranks_too(corpus: Path, tmp_path: Path) -> None:
    for name, workers in (("one", "1"), ("two", "2")):
        out = str(tmp_path / f"{name}.tiktoken")
        call = [
            "tokenizer",
            "train",
            str(corpus),
            "--vocab-size",
            "300",
            "--pattern",
            "gpt4",
            "--workers",
            workers,
        ]
        assert main([*call, "--out", out]) == 0
    assert (tmp_path / "one.tiktoken").read_bytes() == (tmp_path / "two.tiktoken").read_bytes()
    assert Tokenizer.load(tmp_path / "one.tiktoken").vocabulary.pattern.name == "gpt4"


def test_train_a_pattern_of_ones_own(corpus: Path, tmp_path: Path) -> None:
    call = ["tokenizer", "train", str(corpus), "--vocab-size", "300", "--out", str(tmp_path / "t")]
    assert main([*call, "--pattern", r"\w+|\W"]) == 0
    assert Tokenizer.load(tmp_path / "t").vocabulary.pattern.python == r"\w+|\W"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--vocab-size": "100"}, "a vocabulary of 100 is too small"),
        ({"--vocab-size": "256"}, "a vocabulary of 256 is too small"),
        ({"--vocab-size": "90000"}, "merges and 89,743 were asked for"),
        ({"--pattern": "(ab"}, "is no regular expression"),
        ({"--workers": "0"}, "at least 1 worker"),
        ({"--out": "corpus/a.txt/inside"}, "cannot write"),
    ],
)
def test_train_refuses(
    changes: dict[str, str],
    message: str,
    corpus: Path,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = {"--vocab-size": "300", "--out": "t"} | changes
    assert (
        main(["tokenizer", "train", str(corpus), *(part for pair in options.items() for part in pair)]) == 2
    )
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_train_refuses_bad_corpora(corpus: Path, tmp_path: Path, capsys: Captured) -> None:
    (corpus / "bad.txt").write_bytes(b"caf\xe9")
    for files in ([str(corpus)], [str(tmp_path / "absent.txt")], []):
        assert main(["tokenizer", "train", *files, "--vocab-size", "300", "--out", str(tmp_path / "t")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert not (tmp_path / "t").exists()


def test_train_does_not_replace_a_tokenizer(corpus: Path, tmp_path: Path, capsys: Captured) -> None:
    Tokenizer.bytes().save(tmp_path / "t")
    assert main(["tokenizer", "train", str(corpus), "--vocab-size", "300", "--out", str(tmp_path / "t")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert Tokenizer.load(tmp_path / "t").n_vocab == 257


def test_show(capsys: Captured) -> None:
    assert main(["tokenizer", "show", "Hello  world 👍", "--explain"]) == 0
    said = capsys.readouterr().out
    assert "gpt2: 5 tokens for 14 characters, 17 bytes" in said
    assert "Hello|·|·world" in said
    assert "15496" in said
    assert "part of 👍" in said
    assert "Why ·world becomes" in said


def test_show_explains_a_chosen_word(capsys: Captured) -> None:
    assert main(["tokenizer", "show", "a low hill", "--explain", "--word", " low"]) == 0
    assert "Why ·low becomes" in capsys.readouterr().out
    assert main(["tokenizer", "show", "a low hill", "--word", "lwo"]) == 2
    assert "did you mean ' low'" in capsys.readouterr().err


def test_show_an_empty_text(capsys: Captured) -> None:
    assert main(["tokenizer", "show", "", "--explain"]) == 0
    assert "0 tokens for 0 characters" in capsys.readouterr().out


def test_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é".encode())))
    assert main(["tokenizer", "show", "-", "--tokenizer", "bytes"]) == 0
    assert "2 tokens for 1 characters" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert main(["tokenizer", "show", "-"]) == 2
    assert "standard input is not UTF-8 at byte 0" in capsys.readouterr().err


def test_compare_a_text_and_a_file(tmp_path: Path, capsys: Captured) -> None:
    both = ["--tokenizer", "gpt2", "--tokenizer", "bytes"]
    assert main(["tokenizer", "compare", "hello world", *both]) == 0
    said = capsys.readouterr().out
    assert "5.500" in said
    assert "550.0%" in said
    assert "hello|·world" in said
    (tmp_path / "t.txt").write_text("hello world" * 500)
    assert main(["tokenizer", "compare", str(tmp_path / "t.txt"), *both]) == 0
    assert "5,500 characters, 5,500 bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        ["compare", "x", "--tokenizer", "gpt2"],
        ["compare", "", "--tokenizer", "gpt2", "--tokenizer", "bytes"],
        ["show", "x", "--tokenizer", "absent"],
        ["show", "x\udcff"],
        ["shwo", "x"],
    ],
)
def test_wrong_calls(args: list[str], capsys: Captured) -> None:
    assert main(["tokenizer", *args]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_help_names_the_actions(capsys: Captured) -> None:
    assert main(["tokenizer", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(action in said for action in ("train", "show", "compare"))


def test_an_empty_file_is_named(tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    call = [
        "tokenizer",
        "train",
        str(tmp_path / "empty.txt"),
        "--vocab-size",
        "257",
        "--out",
        str(tmp_path / "t"),
    ]
    assert main(call) == 2
    assert "empty.txt: no text in it" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
