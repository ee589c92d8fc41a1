"""Prepare: the same bytes for any number of workers, the documents of every kind of file, what is skipped."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from myna.cli import main
from myna.data.prepare import dataset, encode, prepare
from myna.data.sources import cut
from myna.data.sources.documents import documents
from myna.data.sources.fetch import Fetcher
from myna.data.sources.source import Source
from myna.data.split import Dataset, Split
from myna.errors import DataError, DownloadError, OutputError, UsageError
from myna.text.tokenizer import Tokenizer

WORDS = ["the", "of", "and", "to", "in", "is", "it", "you", "that", "he", "was", "for", "on", "as", "be"]


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Documents of mixed lengths and scripts."""
    rng = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), int(rng.integers(1, 300)))]
        words[::9] = ["naïve", "日本語", "🙂", "it's\n\n"][number % 4 : number % 4 + 1] * len(words[::9])
        texts.append(" ".join(words) + f" {number}\n")
    return texts


def texts_of(split: Split, tokenizer: Tokenizer) -> list[str]:
    """A split's documents, decoded."""
    ids = split.read(0, split.n_tokens)
    parts = np.split(ids, np.flatnonzero(ids == tokenizer.eot))[1:]
    return [tokenizer.decode(part[1:].tolist()) for part in parts]


def digest(folder: Path) -> dict[str, str]:
    """The name and hash of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def write_corpus(folder: Path) -> list[str]:
    """Files of every kind; returns all documents in the order of the files' names."""
    folder.mkdir()
    texts = some_texts(600)
    lines = [(json.dumps({"id": n, "text": text}) + "\n").encode() for n, text in enumerate(texts)]
    (folder / "a.txt").write_bytes(texts[0].encode())
    (folder / "b.jsonl").write_bytes(b"".join(lines[1:200]))
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[200:250])))
    frames = [zstandard.compress(b"".join(lines[start : start + 10])) for start in range(250, 300, 10)]
    (folder / "d.jsonl.zst").write_bytes(b"".join(frames))
    (folder / "e.md.zst").write_bytes(zstandard.compress(texts[300].encode()))
    pq.write_table(
        pa.table({"url": ["x"] * 298, "text": texts[301:599]}), folder / "f.parquet", row_group_size=37
    )
    (folder / "g.txt.gz").write_bytes(gzip.compress(texts[599].encode()))
    (folder / "ignored.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    return texts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and blocks so small that a small corpus has many."""
    monkeypatch.setattr(cut, "PART_BYTES", 9000)
    monkeypatch.setattr(encode, "BLOCK_CHARACTERS", 2000)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", ["gpt2", "bytes"])
def test_every_document_of_every_kind_of_file_in_order(tmp_path: Path, name: str) -> None:
    texts = write_corpus(tmp_path / "corpus")
    tokenizer = Tokenizer.open(name)
    made = prepare([str(tmp_path / "corpus")], tmp_path / "data", tokenizer, workers=2, shard_tokens=7001)
    train, val = texts_of(made.train, tokenizer), texts_of(made.val, tokenizer)
    assert set(train).isdisjoint(val)
    assert [text for text in texts if text in set(train)] == train
    assert [text for text in texts if text in set(val)] == val
    assert len(train) + len(val) == len(texts)
    assert 0.05 < len(val) / len(texts) < 0.16
    ids = made.train.read(0, made.train.n_tokens)
    expected = [i for text in train for i in (tokenizer.eot, *tokenizer.encode(text))]
    assert ids.tolist() == expected
    assert list(documents([str(tmp_path / "corpus")])) == texts
    assert list(documents([str(tmp_path / "corpus")], split="val")) == val


@pytest.mark.usefixtures("small_parts")
def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    results = []
    for workers in (1, 2, 5):
        out = tmp_path / f"data{workers}"
        prepare([str(tmp_path / "corpus")], out, Tokenizer.gpt2(), workers=workers, shard_tokens=7001)
        results.append(digest(out))
    assert len(results[0]) > 6
    assert results[0] == results[1] == results[2]


def test_ids_and_splits_do_not_depend_on_how_the_corpus_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "corpus")
    whole = prepare([str(tmp_path / "corpus")], tmp_path / "whole", Tokenizer.gpt2())
    for size in (300, 5000):
        monkeypatch.setattr(cut, "PART_BYTES", size)
        parts = prepare([str(tmp_path / "corpus")], tmp_path / f"cut{size}", Tokenizer.gpt2())
        assert digest(parts.path) == digest(whole.path)


def test_a_document_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    texts = some_texts(300)
    for name, some in (("few", texts[::2]), ("all", texts)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in some)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    few = set(documents([str(tmp_path / "few.jsonl")], split="val"))
    everything = set(documents([str(tmp_path / "all.jsonl")], split="val"))
    assert few == everything & set(texts[::2])
    assert set(documents([str(tmp_path / "all.jsonl")], split="val", val_fraction=0.05)) < everything


def one_document(folder: Path, kind: str, text: str) -> Path:
    path = (
        folder / {"text": "one.txt", "gz": "one.txt.gz", "jsonl": "one.jsonl", "parquet": "one.parquet"}[kind]
    )
    if kind == "parquet":
        pq.write_table(pa.table({"text": ["", text]}), path)
    elif kind == "gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes((text if kind == "text" else json.dumps({"text": text}) + "\n").encode())
    return path


@pytest.mark.parametrize("kind", ["text", "gz", "jsonl", "parquet"])
@pytest.mark.parametrize("small", [True, False])
def test_one_document_gives_its_last_lines_to_validation(
    tmp_path: Path, kind: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "PART_BYTES", 700 if small else 1 << 20)
    text = "".join(f"Line {n} of naïve 日本語 text,  spaced.\n\n" for n in range(300))
    path = one_document(tmp_path, kind, text)
    tokenizer = Tokenizer.gpt2()
    made = prepare([str(path)], tmp_path / "data", tokenizer)
    (train,), (val,) = texts_of(made.train, tokenizer), texts_of(made.val, tokenizer)
    assert train + val == text
    assert train.endswith("\n")
    assert abs(len(val.encode()) / len(text.encode()) - 0.1) < 0.01
    assert made.train.read(0, made.train.n_tokens).tolist() == [tokenizer.eot, *tokenizer.encode(train)]
    assert (made.train.n_documents, made.val.n_documents) == (1, 1)


def test_a_large_text_file_among_others_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "PART_BYTES", 500)
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = [f"{n}: " + " ".join(some_texts(3, seed=n)) for n in range(12)]
    for n, text in enumerate(texts):
        (folder / f"{n:02d}.txt").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.gpt2()
    made = prepare([str(folder)], tmp_path / "data", tokenizer, val_fraction=0.3)
    found = texts_of(made.train, tokenizer) + texts_of(made.val, tokenizer)
    assert sorted(found) == sorted(texts)
    assert made.val.n_documents > 0
    ids = made.val.read(0, made.val.n_tokens).tolist()
    assert ids == [
        i for text in texts_of(made.val, tokenizer) for i in (tokenizer.eot, *tokenizer.encode(text))
    ]


def test_no_validation_when_the_fraction_is_zero(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("Some text.\nAnd more.\n")
    made = prepare([str(tmp_path / "one.txt")], tmp_path / "data", Tokenizer.bytes(), val_fraction=0)
    assert (made.val.n_tokens, made.val.n_documents, made.train.n_bytes) == (0, 0, 21)
    with pytest.raises(UsageError, match="fraction"):
        prepare([str(tmp_path / "one.txt")], tmp_path / "other", Tokenizer.bytes(), val_fraction=1.0)


def test_large_vocabularies_get_uint32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.txt").write_text("Some text.\nAnd more.\n")
    tokenizer = Tokenizer.bytes()
    monkeypatch.setattr(Tokenizer, "n_vocab", 70_000)
    made = prepare([str(tmp_path / "one.txt")], tmp_path / "data", tokenizer)
    assert np.load(made.train.shards[0].path).dtype == np.uint32


def test_text_that_spells_end_of_text_does_not_become_it(tmp_path: Path) -> None:
    path = tmp_path / "tricky.jsonl"
    path.write_text('{"text": "a<|endoftext|>b"}\n{"text": "c"}\n')
    made = prepare([str(path)], tmp_path / "data", Tokenizer.gpt2(), val_fraction=0)
    ids = made.train.read(0, made.train.n_tokens)
    assert (ids == 50256).sum() == 2


def test_pydoc_is_large_enough_and_has_no_document_twice() -> None:
    texts = list(documents(["pydoc"]))
    assert len(set(texts)) == len(texts)
    assert 1500 < len(texts) < 4000
    assert 1e6 < sum(len(text.encode()) for text in texts) < 4e6
    assert texts[0].startswith('The "assert" statement')


def columns(folder: Path, table: dict[str, Sequence[str | int]]) -> list[str]:
    pq.write_table(pa.table(table), folder / "x.parquet")
    return [str(folder / "x.parquet")]


def test_the_text_column_is_found_or_named(tmp_path: Path) -> None:
    rows = ["one two\n", "three four\n"]
    assert list(documents(columns(tmp_path, {"id": [1, 2], "body": rows}))) == rows
    assert list(documents(columns(tmp_path, {"a": ["x", "y"], "text": rows}))) == rows
    assert list(documents(columns(tmp_path, {"a": ["x", "y"], "b": rows}), column="b")) == rows
    with pytest.raises(DataError, match=r"which column holds the text\? It has a, b"):
        list(documents(columns(tmp_path, {"a": ["x", "y"], "b": rows})))
    with pytest.raises(DataError, match="no text column 'c'; it has id, b"):
        list(documents(columns(tmp_path, {"id": [1, 2], "b": rows}), column="c"))
    (tmp_path / "x.jsonl").write_text('{"n": 1, "body": "one"}\n{"body": "two"}\n')
    assert list(documents([str(tmp_path / "x.jsonl")], val_fraction=0)) == ["one", "two"]


def test_the_same_call_does_nothing_and_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("Some text.\nAnd more.\n")

    def call(out: str = "data", tokenizer: str = "bytes", val_fraction: float | None = None) -> Dataset:
        return prepare([str(path)], tmp_path / out, Tokenizer.open(tokenizer), val_fraction=val_fraction)

    call()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").iterdir()}
    call()
    call(val_fraction=0.1)  # the default, said aloud
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "data").iterdir()}
    with pytest.raises(OutputError, match="different: val_fraction"):
        call(val_fraction=0.2)
    with pytest.raises(OutputError, match="different: tokenizer"):
        call(tokenizer="gpt2")
    path.write_text("Some text.\nAnd more.\nAnd even more.\n")
    with pytest.raises(OutputError, match="different: files"):
        call()
    path.unlink()
    call()  # what is done needs its source no more
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    path.write_text("Some text.\nAnd more.\n")
    with pytest.raises(OutputError, match="is no dataset of ours"):
        call(out="full")
    (tmp_path / "empty").mkdir()
    call(out="empty")


def test_files_in_an_object_store(tmp_path: Path) -> None:
    """Any address that fsspec knows: here its store in memory stands for s3 and the like."""
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    assert list(documents(["memory://bucket/a.jsonl"], val_fraction=0)) == ["one", "two"]
    made = prepare(
        ["memory://bucket/a.jsonl"], tmp_path / "data", Tokenizer.bytes(), val_fraction=0, workers=1
    )
    assert made.train.n_documents == 2
    with pytest.raises(DownloadError, match="cannot download memory://bucket/absent"):
        prepare(["memory://bucket/absent.jsonl"], tmp_path / "other", Tokenizer.bytes())


def test_fetched_files_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr(dataset, "JOURNAL_EVERY_S", 0.0)
    store = fsspec.filesystem("memory")
    for n in range(20):
        store.pipe(f"/bucket/{n:02d}.jsonl", json.dumps({"text": f"text {n}"}).encode())
    most = 0
    folder = tmp_path / "data.partial" / "fetched"

    def watch(self: Fetcher, number: int) -> Source:
        nonlocal most
        file = real(self, number)
        most = max(most, len(list(folder.iterdir())))
        return file

    real = Fetcher.get
    monkeypatch.setattr(Fetcher, "get", watch)
    specs = [f"memory://bucket/{n:02d}.jsonl" for n in range(20)]
    made = prepare(specs, tmp_path / "data", Tokenizer.bytes(), val_fraction=0, workers=1)
    assert texts_of(made.train, Tokenizer.bytes()) == [f"text {n}" for n in range(20)]
    assert 0 < most <= 9  # four ahead, and those whose chunks are in work


def test_a_tokenizer_that_cutting_would_change_gets_large_texts_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern of the user's own may take a word and the space after it together."""
    monkeypatch.setattr(cut, "PART_BYTES", 500)
    monkeypatch.setattr(encode, "STRETCH_CHARACTERS", 100)
    text = "".join(f"one two three {n}\n" for n in range(300))
    tokenizer = Tokenizer.train([text], 300, pattern=r"\S+\s*|\s+")
    (tmp_path / "a.txt").write_text(text)
    made = prepare([str(tmp_path / "a.txt")], tmp_path / "own", tokenizer, val_fraction=0)
    assert made.train.read(0, made.train.n_tokens).tolist() == [tokenizer.eot, *tokenizer.encode(text)]
    for other in (Tokenizer.gpt2(), Tokenizer.bytes(), Tokenizer.train([text], 300, pattern="gpt4")):
        made = prepare([str(tmp_path / "a.txt")], tmp_path / other.sha256, other, val_fraction=0)
        assert made.train.read(0, made.train.n_tokens).tolist() == [other.eot, *other.encode(text)]


@pytest.mark.parametrize("name", ["notes.md", "tokenizer.json", "journal.json"])
def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("Some text. " * 50)
    taken = tmp_path / "data.partial"
    taken.mkdir()
    (taken / name).write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="no prepare made it"):
        prepare([str(tmp_path / "a.txt")], tmp_path / "data", Tokenizer.bytes(), workers=1)
    assert [file.name for file in taken.iterdir()] == [name]
    assert (taken / name).read_text() == '{"mine": 1}'
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"shard_tokens": 0}, "--shard-tokens is 0"), ({"workers": 0}, "--workers is 0")],
)
def test_a_wrong_number_names_its_flag(tmp_path: Path, options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prepare(["pydoc"], tmp_path / "data", Tokenizer.bytes(), **options)


def test_a_corpus_that_is_no_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": 5}\n')
    for spec, words in (
        ("/dev/zero", "is a device or a pipe"),
        ("", "named by nothing"),
        (str(tmp_path / "a.jsonl"), "field 'text' is not text"),
    ):
        with pytest.raises(DataError, match=words):
            prepare([spec], tmp_path / "data", Tokenizer.bytes())


def text_of_validation(text: str) -> str:
    """A text that falls to validation at 0.3, made from this one."""
    while int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >= 0.3 * 2**64:
        text = "again " + text
    return text


@pytest.mark.parametrize("large", [False, True])
def test_a_document_that_is_most_of_validation_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`large`: so large that it is encoded in several parts."""
    if large:
        monkeypatch.setattr(cut, "PART_BYTES", 10_000)
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n:02d}.txt").write_text(f"document {n}\n" * 10)
    (folder / "z.txt").write_text(text_of_validation("document z\n" * 10))
    arguments = ["prepare", str(folder), "--tokenizer", "bytes", "--val-fraction", "0.3", "--out"]
    assert main([*arguments, str(tmp_path / "even")]) == 0
    assert "of the validation split" not in capsys.readouterr().out
    (folder / "z.txt").write_text(text_of_validation("one and the same line\n" * 1500))
    assert main([*arguments, str(tmp_path / "odd")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "of the validation split" in line]
    assert len(said) == 1
    assert said[0].startswith(f"one document of {folder.as_posix()}/z.txt is 9")
    (tmp_path / "one.txt").write_text("a line\n" * 100)
    assert main([*arguments[:1], str(tmp_path / "one.txt"), *arguments[2:], str(tmp_path / "one")]) == 0
    assert "of the validation split" not in capsys.readouterr().out
