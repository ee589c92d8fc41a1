"""Files of any name: text is taken, what is left out is said, and a file that was named is never skipped."""

import gzip
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import zstandard

from myna.cli import main
from myna.data.shards import open_dataset

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def prepare(out: Path, *args: str) -> int:
    return main(["prepare", *args, "--out", str(out), "--tokenizer", "bytes", "--val-fraction", "0"])


def files_of(out: Path, folder: Path) -> list[str]:
    """What dataset.json says the dataset was made from, without the folder."""
    files = open_dataset(out).info["source"]["files"]
    return [Path(file["file"]).relative_to(folder).as_posix() for file in files]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder as a programmer has it: text of many names, and what is no text."""
    folder = tmp_path / "project"
    texts = {
        "README": b"read me\n",
        "notes.txt": b"notes\n",
        "docs/index.rst": "naïve 日本語\n".encode(),
        "docs/page.html": b"<p>page</p>\n",
        "docs/old.rst.gz": gzip.compress(b"old page\n"),
        "docs/old.log.zst": zstandard.compress(b"a log\n"),
        "src/code.PY": b"print(1)\n",
        "records.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    }
    others = {
        "a.png": PNG,
        "b.PNG": PNG,
        "src/code.pyc": b"\xa7\r\r\n\0\0\0\0",
        "src/__init__.py": b"",
        "archive.tar.gz": gzip.compress(b"name" + bytes(508)),
        "cut.log.gz": gzip.compress(bytes(range(1, 128)) * 90)[:60],
        "latin.tex": b"caf\xe9\n",
        "program": b"\x7fELF\2\1\1\0",
        ".git/config": b"[core]\n",
        ".env": b"A=1\n",
        "src/.hidden.txt": b"hidden\n",
    }
    for name, data in (texts | others).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "link").symlink_to(folder / "docs")
    return folder


def test_text_of_any_name_is_taken_and_the_rest_is_said(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tmp_path / "data", str(project)) == 0
    assert files_of(tmp_path / "data", project) == [
        "README",
        "docs/index.rst",
        "docs/old.log.zst",
        "docs/old.rst.gz",
        "docs/page.html",
        "notes.txt",
        "records.jsonl",
        "src/code.PY",
    ]
    assert open_dataset(tmp_path / "data").train.n_documents == 9
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert len(said) == 1
    for part in ("2 .png, ", "1 .pyc", "1 .gz", "1 without a suffix"):
        assert part in said[0].partition(" (binary)")[0]
    link = f"1 linked ({project / 'link'}: name such a folder to have it read)"
    for part in ("1 .tex (not UTF-8)", "1 .gz (damaged)", "1 empty", "3 hidden", link):
        assert part in said[0]


def test_training_a_tokenizer_says_it_too(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["tokenizer", "train", str(project), "--vocab-size", "260", "--out", str(tmp_path / "own")]) == 0
    )
    assert capsys.readouterr().out.startswith("left out: 2 .png, ")


def test_a_glob_leaves_out_too_and_a_named_file_is_an_error(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tmp_path / "data", str(project / "*")) == 0
    assert files_of(tmp_path / "data", project) == ["README", "notes.txt", "records.jsonl"]
    assert "left out: 2 .png" in capsys.readouterr().out
    for name, why in (("a.png", "binary"), ("latin.tex", "not UTF-8"), ("cut.log.gz", "damaged")):
        assert prepare(tmp_path / "other", str(project / name)) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{name} is no text ({why})" in said
    assert not (tmp_path / "other").exists()
    assert prepare(tmp_path / "readme", str(project / "README")) == 0
    assert files_of(tmp_path / "readme", project) == ["README"]


def test_a_character_at_the_end_of_the_sample_and_bad_bytes_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.rst").write_bytes(b"x" * 8190 + "日本語\n".encode())
    assert prepare(tmp_path / "data", str(folder)) == 0
    assert "left out" not in capsys.readouterr().out
    (folder / "b.rst").write_bytes(b"line\n" * 2000 + b"caf\xe9\n")
    assert prepare(tmp_path / "other", str(folder)) == 2
    assert "b.rst is not UTF-8 at byte 10,003 (line 2,001)" in capsys.readouterr().err
    assert prepare(tmp_path / "other", str(folder), "--skip-bad") == 0
    assert "skipped 1 bad document" in capsys.readouterr().out


def test_a_dataset_inside_the_corpus_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.rst").write_text("text\n")
    for _ in range(2):  # the second time it finds that it is done
        assert prepare(tmp_path / "data" / "one", ".") == 0
    unfinished = tmp_path / "data" / "two.partial"
    unfinished.mkdir()
    (unfinished / ".lock").write_text("")
    (unfinished / "tokenizer.json").write_text("{}")
    capsys.readouterr()
    assert prepare(tmp_path / "data" / "two", ".") == 0
    assert "left out: 2 made by myna prepare" in capsys.readouterr().out
    for name in ("one", "two"):
        assert [file["file"] for file in open_dataset(tmp_path / "data" / name).info["source"]["files"]] == [
            "a.rst"
        ]
    assert prepare(tmp_path / "three", "**/*") == 0
    assert "left out: 2 made by myna prepare" in capsys.readouterr().out
    assert prepare(tmp_path / "three", "**/*") == 0
    assert prepare(tmp_path / "four", "data/one") == 2
    assert "holds no text (left out: 1 made by myna prepare)" in capsys.readouterr().err


def test_a_file_name_that_json_cannot_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / "caf\udce9.txt").write_text("text\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert prepare(tmp_path / "data", str(tmp_path / "in")) == 2
    assert "is not UTF-8, and dataset.json records it; rename the file" in capsys.readouterr().err
    assert not (tmp_path / "data.partial").exists()


def test_links_in_circles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Followed, each pair of them would double the paths: 2 to the power of 40 before the system stops it."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one\n")
    (folder / "sub" / "b.txt").write_text("two\n")
    (folder / "c.txt").symlink_to(folder / "a.txt")
    (folder / "lost.txt").symlink_to(folder / "nowhere")
    (folder / "self.txt").symlink_to("self.txt")
    for name in ("x", "y", "sub/z"):
        (folder / name).symlink_to(folder)
    linked = (
        f"3 linked ({folder / 'sub/z'}, {folder / 'x'}, {folder / 'y'}: name such a folder to have it read)"
    )
    for number, spec in enumerate(
        (folder, folder / "**", folder / "**" / "*.txt", folder / "**" / "**" / "*")
    ):
        assert prepare(tmp_path / f"data{number}", str(spec)) == 0
        assert files_of(tmp_path / f"data{number}", folder) == ["a.txt", "c.txt", "sub/b.txt"]
        assert linked in capsys.readouterr().out
    for number, spec in enumerate((folder / "x", folder / "[xy]" / "*.txt")):
        assert prepare(tmp_path / f"named{number}", str(spec)) == 0
        assert "x/a.txt" in files_of(tmp_path / f"named{number}", folder)


@pytest.mark.parametrize(
    ("unreadable", "mode", "said"),
    [
        ("in/sub", 0o000, "cannot read the folder in/sub: Permission denied"),
        ("in/sub", 0o444, "in/sub/deep: Permission denied"),  # listed, and not entered
        ("in/sub/deep", 0o000, "cannot read the folder in/sub/deep: Permission denied"),
        ("in/sub/deep/b.rst", 0o000, "cannot read in/sub/deep/b.rst: Permission denied"),
        ("in/sub/deep/c.txt", 0o000, "cannot read in/sub/deep/c.txt: Permission denied"),
    ],
)
@pytest.mark.parametrize("spec", ["in", "in/**", "in/*/*/*", "in/sub/deep/b.rst in/sub/deep/c.txt"])
@pytest.mark.usefixtures("open_folder")
def test_what_cannot_be_read_is_not_left_out(
    unreadable: str,
    mode: int,
    said: str,
    spec: str,
    capsys: pytest.CaptureFixture[str],
    as_nobody: Callable[[], AbstractContextManager[None]],
) -> None:
    deep = Path("in/sub/deep")
    deep.mkdir(parents=True)
    for path in (deep / "b.rst", deep / "c.txt", Path("in/a.txt")):
        path.write_text("text\n")
    assert prepare(Path("before"), *spec.split()) == 0
    capsys.readouterr()
    os.chmod(unreadable, mode)
    try:
        with as_nobody():
            assert prepare(Path("data"), *spec.split()) == 2
    finally:
        os.chmod(unreadable, 0o777)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Permission denied; name what can be read" in error or (
        ".txt" in spec and "Permission denied; " in error
    )
    assert (said if spec == "in" else "in/sub") in error
    assert sorted(os.listdir()) == ["before", "in"]
