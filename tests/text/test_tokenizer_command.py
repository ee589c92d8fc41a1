"""`myna tokenizer`: each action does its work, and each wrong call is one line and exit code 2."""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from myna import Tokenizer
from myna.cli import main
from myna.text.ranks import rank_file

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


def test_train_a_sentencepiece_model(corpus: Path, tmp_path: Path, capsys: Captured) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder, file = tmp_path / "made", tmp_path / "one.model"
    call = ["tokenizer", "train", str(corpus), "--kind", "sentencepiece", "--vocab-size", "400"]
    assert main([*call, "--out", str(folder)]) == 0
    assert "400 ids (<unk>, <s>, </s>, 256 bytes, 141 pieces)" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["tokenizer.model"]
    assert main([*call, "--out", str(file), "--workers", "2"]) == 0
    assert file.read_bytes() == (folder / "tokenizer.model").read_bytes()
    text = "Two  spaces, 12 naïve 😀\nand a line."
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(file))
    ids = Tokenizer.load(folder).encode(text)
    assert ids == theirs.encode(text)
    assert theirs.decode(ids) == text
    assert "<0x0A>" in theirs.encode(text, out_type=str)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--vocab-size", "100"],
            "a vocabulary of 100 is too small: <unk>, <s>, </s> and the 256 bytes make 259; give a size of 259 or more",
        ),
        (
            ["--vocab-size", "260"],
            "a vocabulary of 260 is too small for the characters of this text: give --vocab-size ",
        ),
        (
            ["--vocab-size", "90000"],
            "a vocabulary of 90000 is larger than this text can fill: give --vocab-size ",
        ),
        (["--vocab-size", "400", "--pattern", "gpt4"], "--pattern is for --kind bpe"),
        (["--vocab-size", "400", "--out", "a.tiktoken"], "sentencepiece has no ranks"),
        (["--vocab-size", "400", "--kind", "bpe", "--out", "a.model"], "a .model is sentencepiece's"),
    ],
)
def test_a_sentencepiece_model_that_cannot_be_had(
    flags: list[str],
    words: str,
    corpus: Path,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sentencepiece")
    monkeypatch.chdir(tmp_path)
    call = ["tokenizer", "train", str(corpus), "--kind", "sentencepiece", "--out", "made", *flags]
    assert main(call) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "myna tokenizer:" in line]
    assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_bad_document_is_named_and_not_the_library_that_read_it(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine and well"}\n{"text": 3}\n')
    call = [
        "tokenizer",
        "train",
        str(tmp_path / "bad.jsonl"),
        "--kind",
        "sentencepiece",
        "--vocab-size",
        "300",
    ]
    assert main([*call, "--out", str(tmp_path / "made")]) == 2
    assert "bad.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


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
        ({"--vocab-size": "100"}, "the 256 bytes and <|endoftext|> make 257; give a size of 257 or more"),
        ({"--vocab-size": "256"}, "a vocabulary of 256 is too small"),
        ({"--vocab-size": "90000"}, "merges and 89,743 were asked for"),
        ({"--pattern": "(ab"}, "; correct --pattern, or give gpt2, gpt4 or o200k"),
        ({"--workers": "0"}, "at least 1 worker"),
        ({"--out": "corpus/a.txt/inside"}, "cannot write"),
        ({"--out": "corpus"}, "corpus holds other files; give a new or an empty directory"),
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


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def show_on_a_terminal(text: str, monkeypatch: pytest.MonkeyPatch, **environ: str) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": "120"} | environ).items():
        monkeypatch.setenv(name, value)
    assert main(["tokenizer", "show", text]) == 0
    return terminal.getvalue()


def test_show_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = show_on_a_terminal("Hello  world 👍", monkeypatch)
    assert "gpt2: 5 tokens for 14 characters, 17 bytes" in said
    assert "\x1b[30;" in said
    assert "Hello\x1b" in said
    assert "15496" in said
    assert "part of 👍" in said


def test_show_on_a_terminal_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    said = show_on_a_terminal("a|b 👍", monkeypatch, NO_COLOR="1")
    assert '"a" "|" "b" 20f09f91 8d' in said
    assert "part of 👍" in said


def tokens_of(lines: list[str]) -> list[tuple[int, bytes]]:
    """The lines of tokens, read as the documentation says."""
    tokens = []
    for line in lines:
        number, shown = line.split("\t")
        data = json.loads(shown).encode() if shown.startswith('"') else bytes.fromhex(shown)
        tokens.append((int(number), data))
    return tokens


@pytest.mark.parametrize("name", ["gpt2", "bytes"])
@pytest.mark.parametrize(
    "text",
    [
        "Hello  world",
        "a|b || |",
        "one\ntwo\r\n\tthree\x00\x85\u2028\u2029\x0c",
        '"quoted" \\n \\u0041 f09f 8d',
        "👍🏽 é \u0301 中文 \u200d",
        "<|endoftext|>",
        "",
    ],
)
def test_what_show_pipes_can_be_read_back(text: str, name: str, capsys: Captured) -> None:
    assert main(["tokenizer", "show", text, "--tokenizer", name]) == 0
    said = capsys.readouterr()
    tok = Tokenizer.open(name)
    assert tokens_of(said.out.splitlines()) == [(i, tok.token_bytes(i)) for i in tok.encode(text)]
    assert f"{name}: " in said.err


def test_what_explain_pipes_comes_after_a_blank_line(capsys: Captured) -> None:
    assert main(["tokenizer", "show", "Hello\n\nworld", "--explain"]) == 0
    tokens, _, why = capsys.readouterr().out.partition("\n\n")
    assert [data for _, data in tokens_of(tokens.splitlines())] == [b"Hello", b"\n", b"\n", b"world"]
    assert "Why Hello becomes" in why


def test_show_explains_a_chosen_word(capsys: Captured) -> None:
    assert main(["tokenizer", "show", "a low hill", "--explain", "--word", " low"]) == 0
    assert "Why ·low becomes" in capsys.readouterr().out
    assert main(["tokenizer", "show", "a low hill", "--word", "lwo"]) == 2
    assert "did you mean ' low'" in capsys.readouterr().err
    assert main(["tokenizer", "show", "a low hill", "--word", "zz"]) == 2
    assert "no pre-token 'zz'; give one of its own, such as 'a', ' low', ' hill'\n" in capsys.readouterr().err
    assert main(["tokenizer", "show", "", "--word", "zz"]) == 2
    assert "no pre-token 'zz'; give a text that is not empty\n" in capsys.readouterr().err


def test_show_an_empty_text(capsys: Captured) -> None:
    assert main(["tokenizer", "show", "", "--explain"]) == 0
    assert "0 tokens for 0 characters" in capsys.readouterr().err


def test_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é".encode())))
    assert main(["tokenizer", "show", "-", "--tokenizer", "bytes"]) == 0
    assert "2 tokens for 1 character" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert main(["tokenizer", "show", "-"]) == 2
    assert "standard input is not UTF-8 at byte 0" in capsys.readouterr().err


def test_compare_a_text_and_a_file(tmp_path: Path, capsys: Captured) -> None:
    both = ["--tokenizer", "gpt2", "--tokenizer", "bytes"]
    assert main(["tokenizer", "compare", "hello world", *both]) == 0
    said = capsys.readouterr().out
    assert "5.500" in said
    assert "550.0%" in said
    assert '"hello" " world"' in said
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


@pytest.mark.parametrize("name", ["gpt4", "cl100k_base", "p50k_base", "absent/cl100k_base.tiktoken"])
def test_a_published_tokenizer_is_named_with_the_way_to_get_it(name: str, capsys: Captured) -> None:
    assert main(["tokenizer", "show", "x", "--tokenizer", name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    file = "p50k_base.tiktoken" if name == "p50k_base" else "cl100k_base.tiktoken"
    assert f"{name} is OpenAI's tokenizer" in said.err
    assert "not bundled" in said.err
    assert f"download https://openaipublic.blob.core.windows.net/encodings/{file}" in said.err
    assert f"--tokenizer FOLDER/{file}" in said.err


def test_a_published_rank_file_is_read_by_the_way_that_is_named(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_bytes(rank_file({bytes([i]): i for i in range(256)} | {b"lo": 256, b"low": 257}))
    assert main(["tokenizer", "show", "low 1234", "--tokenizer", str(path)]) == 0
    tokens = tokens_of(capsys.readouterr().out.splitlines())
    assert tokens[:2] == [(257, b"low"), (32, b" ")]
    assert Tokenizer.open(str(path)).eot == 100257
    assert Tokenizer.open(str(path)).vocabulary.pattern.name == "gpt4"


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


def as_no_root(act: Callable[[], int]) -> int:
    """What is done where permissions count: root sees none of them."""
    if os.geteuid():
        return act()
    os.seteuid(65534)
    try:
        return act()
    finally:
        os.seteuid(0)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may enter, with a file in it; the folders above it are open."""
    for above in tmp_path.parents:
        if above.stat().st_uid == os.geteuid() and str(above).startswith(tempfile.gettempdir() + os.sep):
            above.chmod(above.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "text.txt").write_text("secret")
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


def test_what_can_not_be_read_is_no_text_and_no_tokenizer(closed: Path, capsys: Captured) -> None:
    path = str(closed / "text.txt")
    both = ["--tokenizer", "gpt2", "--tokenizer", "bytes"]
    calls = [
        ["compare", path, *both],
        ["compare", str(closed), *both],
        ["compare", str(closed.parent), *both],
        ["show", "x", "--tokenizer", path],
        ["show", "x", "--tokenizer", str(closed)],
    ]
    for call in calls:
        assert as_no_root(lambda call=call: main(["tokenizer", *call])) == 2  # type: ignore[misc]
        said = capsys.readouterr()
        assert said.out == ""
        assert "cannot read" in said.err or "Permission denied" in said.err
        assert call[1 if call[0] == "compare" else -1] in said.err
        assert len(said.err.strip().splitlines()) == 1


def run_in_ascii(*args: str, cwd: Path) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "myna", *args], env=environment, capture_output=True, cwd=cwd, check=False
    )


def test_an_ascii_output_has_every_character_as_json_spells_it(tmp_path: Path) -> None:
    text = "é 中文 \U0001f600 ·"
    shown = run_in_ascii("tokenizer", "show", text, "--explain", cwd=tmp_path)
    assert (shown.returncode, b"Traceback" in shown.stderr) == (0, False)
    lines = shown.stdout.decode("ascii").split("\n\n")[0].splitlines()
    assert b"".join(token for _, token in tokens_of(lines)) == text.encode()


def test_data_show_on_an_ascii_output(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("naïve 中文 \U0001f600\n" * 50, encoding="utf-8")
    made = run_in_ascii(
        "prepare", "a.txt", "--out", "d", "--tokenizer", "bytes", "--workers", "1", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    shown = run_in_ascii("data", "show", "d", cwd=tmp_path)
    assert (shown.returncode, b"Traceback" in shown.stderr) == (0, False)
    assert b"\\u4e2d" in shown.stdout


def test_an_empty_directory_is_taken(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    call = ["tokenizer", "train", str(corpus), "--vocab-size", "300", "--out", str(tmp_path / "t")]
    assert main(call) == 0
    assert Tokenizer.load(tmp_path / "t").n_vocab == 300
