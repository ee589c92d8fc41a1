"""Files of a corpus that change: between two calls, after a stop, while they are read. None gets past unseen."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from myna.cli import main
from myna.data import verify
from myna.data.prepare import dataset, encode, from_shards, prepare
from myna.data.prepare.from_shards import convert_shards
from myna.data.prepare.work_folder import WorkFolder
from myna.data.sources import cut
from myna.data.sources.cut import cut_file
from myna.data.sources.local import LeftOut, local_files
from myna.data.sources.source import ReadOptions
from myna.data.split import Dataset, Split
from myna.errors import DataError, OutputError, Stopped
from myna.files import sha256_bytes, sha256_file
from myna.text.tokenizer import Tokenizer

NAMES = ("a.txt", "b.jsonl", "c.txt")


def text_of(name: str, word: str = "green") -> bytes:
    """A file's content; words of the same length give the same size."""
    lines = [f"{number} {word} bottles of {name}\n" for number in range(300)]
    if name.endswith(".jsonl"):
        lines = [json.dumps({"text": line}) + "\n" for line in lines]
    return "".join(lines).encode()


def write(path: Path, data: bytes) -> None:
    """Writes a file, and gives it another modification time than it had."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(data)
    os.utime(path, ns=(1, before + 10**9))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in NAMES:
        write(folder / name, text_of(name))
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read to be hashed."""
    names: list[str] = []

    def note(path: Path | str, before_piece: object = None) -> str:
        names.append(Path(path).name)
        return sha256_file(path)

    monkeypatch.setattr(verify, "sha256_file", note)
    return names


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks a file, worked on in this process, and each in the journal."""
    monkeypatch.setattr(cut, "PART_BYTES", 2000)
    monkeypatch.setattr(dataset, "is_small", lambda files: True)
    monkeypatch.setattr(dataset, "JOURNAL_EVERY_S", 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def make(corpus: Path, out: Path) -> Dataset:
    return prepare([str(corpus)], out, Tokenizer.bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_dataset_knows_the_content_of_its_files(
    corpus: Path, tmp_path: Path, name: str, hashed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["prepare", str(corpus), "--out", str(tmp_path / "data"), "--tokenizer", "bytes"]
    assert main(call) == 0
    assert sorted(hashed) == sorted(NAMES)
    made = contents(tmp_path / "data")
    assert json.loads(made["dataset.json"])["source"]["files"] == [
        {"file": (corpus / n).as_posix(), "bytes": len(text_of(n)), "sha256": sha256_bytes(text_of(n))}
        for n in NAMES
    ]
    assert main(call) == 0
    assert len(hashed) == len(NAMES)  # remembered: nothing was read again
    capsys.readouterr()
    write(corpus / name, text_of(name, "broken"[:5]))
    for _ in range(2):
        assert main(call) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"(different: files, such as {corpus / name}); choose another --out or remove it" in said
    write(corpus / name, text_of(name))
    assert main(call) == 0  # another time, and the same content: no change
    assert contents(tmp_path / "data") == made


def test_a_dataset_from_before_the_hashes_is_still_finished(corpus: Path, tmp_path: Path) -> None:
    identity = make(corpus, tmp_path / "data").identity
    place = tmp_path / "data" / "dataset.json"
    info = json.loads(place.read_bytes())
    for file in info["source"]["files"]:
        del file["sha256"]
    place.write_text(json.dumps(info))
    assert make(corpus, tmp_path / "data").identity == identity
    (corpus / "a.txt").write_bytes(b"shorter\n")
    with pytest.raises(OutputError, match=r"different: files, such as .*a\.txt"):
        make(corpus, tmp_path / "data")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("saves", "names"), [(2, NAMES), (5, NAMES), (8, NAMES), (12, NAMES), (4, NAMES[:1])]
)
def test_a_resume_mixes_no_old_and_new_text(
    corpus: Path,
    tmp_path: Path,
    saves: int,
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    hashed: list[str],
) -> None:
    for name in set(NAMES) - set(names):
        (corpus / name).unlink()
    make(corpus, tmp_path / "undisturbed")
    save = WorkFolder.save
    states: list[dict[str, Any]] = []

    def save_and_stop(work: WorkFolder, state: dict[str, Any]) -> None:
        save(work, state)
        states.append(state)
        if len(states) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "save", save_and_stop)
        with pytest.raises(Stopped):
            make(corpus, tmp_path / "data")
    last, _ = states[-1]["position"]
    partial = contents(tmp_path / "data.partial")
    assert partial["inputs.jsonl"].count(b"\n") == last + 1
    for name in names[: last + 1]:
        write(corpus / name, text_of(name, "white"))
        with pytest.raises(OutputError) as caught:
            make(corpus, tmp_path / "data")
        assert f"{corpus / name} was changed since {tmp_path / 'data.partial'} was begun with it" in str(
            caught.value
        )
        assert f"or remove {tmp_path / 'data.partial'} to begin again" in str(caught.value)
        assert contents(tmp_path / "data.partial") == partial
        write(corpus / name, text_of(name))
    hashed.clear()
    (tmp_path / "data.partial" / ".journal.json.1.tmp").write_text("{")  # as a kill leaves it
    make(corpus, tmp_path / "data")
    assert sorted(hashed) == sorted(names)
    assert contents(tmp_path / "data") == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small_parts")
def test_lines_of_inputs_that_are_lost(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset.Inputs, "finish", stop)
        with pytest.raises(Stopped):
            make(corpus, tmp_path / "data")
    lines = tmp_path / "data.partial" / "inputs.jsonl"
    lines.write_bytes(lines.read_bytes()[:-5])
    with pytest.raises(OutputError, match=r"inputs\.jsonl is damaged; remove .*data\.partial to begin again"):
        make(corpus, tmp_path / "data")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ["same size", "longer", "shorter"])
def test_a_file_that_changes_while_it_is_read(
    corpus: Path, tmp_path: Path, name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = encode.split_documents
    data = text_of(name, "white")
    data = {"same size": data, "longer": data * 2, "shorter": data[: len(data) // 2]}[change]

    def split_documents(source: Any, *args: Any) -> Iterator[Any]:
        for number, document in enumerate(found(source, *args)):
            if number == 0 and source.name.endswith(name):
                write(corpus / name, data)
            yield document

    monkeypatch.setattr(encode, "split_documents", split_documents)
    with pytest.raises(DataError, match=f"{name} was changed while it was read; run the same command again"):
        make(corpus, tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    monkeypatch.setattr(encode, "split_documents", found)
    write(corpus / name, text_of(name, "white"))
    make(corpus, tmp_path / "data")


@pytest.mark.parametrize("single", [True, False])
def test_a_text_that_is_cut_short_between_its_parts(
    corpus: Path, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map of such a file ends the process with SIGBUS where it is read past its end."""
    monkeypatch.setattr(cut, "PART_BYTES", 1 << 16)
    write(corpus / "a.txt", text_of("a.txt") * 200)
    source = local_files(str(corpus / "a.txt"), LeftOut())
    assert source is not None
    parts = cut_file(source[0], ReadOptions(val_fraction=0.1, is_single=single))
    next(parts)
    os.truncate(corpus / "a.txt", 10)
    with pytest.raises(DataError, match="was changed while it was read"):
        next(parts)


def test_other_projects_files_that_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, tokenizer = tmp_path / "theirs", Tokenizer.gpt2()
    theirs.mkdir()
    ids = np.random.default_rng(0).integers(0, 50257, (2, 5000)).astype("<u2")
    for name in ("train", "val"):
        write(theirs / f"{name}.bin", ids[0].tobytes())

    def convert() -> Dataset:
        return convert_shards(theirs, tmp_path / "ours", tokenizer, 10**6)

    convert()
    write(theirs / "val.bin", ids[1].tobytes())
    with pytest.raises(OutputError, match=r"different: files, such as val\.bin"):
        convert()
    write(theirs / "val.bin", ids[0].tobytes())
    convert()

    scan = Split.scan

    def scan_and_change(split: Split) -> Iterator[np.ndarray]:
        yield from scan(split)
        write(theirs / "train.bin", ids[1].tobytes())

    monkeypatch.setattr(from_shards.Split, "scan", scan_and_change)
    with pytest.raises(DataError, match=r"train\.bin was changed while it was read"):
        convert_shards(theirs, tmp_path / "other", tokenizer, 10**6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]
