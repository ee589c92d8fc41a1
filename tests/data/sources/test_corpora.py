"""The table of named corpora: each is in the help and the docs, and leads to files."""

import inspect
from pathlib import Path

import pytest

from myna.commands import prepare
from myna.data.sources import corpora
from myna.data.sources.corpora import CORPORA, default_val_fraction, find_files, is_web
from myna.data.sources.source import Source
from myna.errors import DataError

DOCS = Path(__file__).parents[3] / "docs" / "data.md"


@pytest.mark.parametrize("name", CORPORA)
def test_each_is_in_the_help_and_the_docs(name: str) -> None:
    assert f"{name}," in inspect.getsource(prepare.Prepare)
    assert f"`{name}`" in DOCS.read_text("utf-8").partition("## Training")[0]


def test_a_new_one_is_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        def files(self, part: str) -> list[Source]:
            return [Source("a.txt", str(tmp_path / "a.txt"), "text", n_bytes=5)]

    monkeypatch.setitem(CORPORA, "mine", Mine())
    assert [file.name for file in find_files(["mine"])] == ["a.txt"]
    assert not is_web("mine")
    with pytest.raises(DataError, match="did you mean mine"):
        find_files(["minee"])


def test_what_a_part_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def list_files(repository: str, part: str) -> list[Source]:
        asked.append((repository, part))
        return [Source("x", "x", "jsonl", repository=repository)]

    monkeypatch.setattr(corpora, "list_files", list_files)
    find_files(["fineweb-edu", "fineweb-edu:full", "wikipedia:20231101.de", "hf:me/mine", "hf:me/mine:two"])
    find_files(
        [
            "hf:HuggingFaceFW/fineweb-edu:full",
            "hf:HuggingFaceFW/fineweb-edu",
            "hf:wikimedia/wikipedia:20231101.de",
        ]
    )
    assert asked == [
        ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
        ("HuggingFaceFW/fineweb-edu", "data"),
        ("wikimedia/wikipedia", "20231101.de"),
        ("me/mine", ""),
        ("me/mine", "two"),
        ("HuggingFaceFW/fineweb-edu", "data"),
        ("HuggingFaceFW/fineweb-edu", ""),
        ("wikimedia/wikipedia", "20231101.de"),
    ]
    assert default_val_fraction(["fineweb", "hf:me/mine"]) == 0.01
    assert default_val_fraction(["fineweb", "pydoc"]) == 0.1
    with pytest.raises(DataError, match="there is no corpus"):
        find_files(["pydoc:topics"])
