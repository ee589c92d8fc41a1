"""The shard format: written, opened, verified, read; other projects' formats read as they are."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from myna.data import foreign, shards, verify
from myna.data.convert import convert_shards
from myna.data.prepare import prepare
from myna.data.shards import npy_header, open_dataset, verify_shards
from myna.data.split import Dataset
from myna.errors import DataError, OutputError, UsageError
from myna.text.tokenizer import Tokenizer

TEXTS = [f"Document {n} has {'many ' * (n % 7)}words.\nAnd lines.\n" for n in range(200)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return prepare([str(source)], tmp_path / "data", Tokenizer.bytes(), shard_tokens=1009)


def test_shards_are_numpy_files_that_follow_on_each_other(dataset: Dataset) -> None:
    arrays = [np.load(shard.path, mmap_mode="r", allow_pickle=False) for shard in dataset.train.shards]
    assert {array.dtype.str for array in arrays} == {"<u2"}
    assert [len(array) for array in arrays[:-1]] == [1009] * (len(arrays) - 1)
    stream = np.concatenate(arrays)
    assert dataset.train.n_tokens == len(stream)
    assert np.array_equal(dataset.train.read(0, len(stream)), stream)
    across = dataset.train.read(1000, 2500)
    assert across.dtype == np.int64
    assert np.array_equal(across, stream[1000:3500])
    ring = dataset.train.read(len(stream) - 5, 15, ring=True)
    assert np.array_equal(ring, np.concatenate([stream[-5:], stream[:10]]))


def test_every_document_is_there_once_behind_its_end_of_text(dataset: Dataset) -> None:
    tokenizer = Tokenizer.load(dataset.path)
    found = []
    for split in (dataset.train, dataset.val):
        ids = split.read(0, split.n_tokens)
        assert ids[0] == tokenizer.eot
        parts = np.split(ids, np.flatnonzero(ids == tokenizer.eot))[1:]
        texts = [tokenizer.decode(part[1:]) for part in parts]
        assert split.n_documents == len(texts)
        assert split.n_bytes == sum(len(text.encode()) for text in texts)
        found += texts
    assert sorted(found) == sorted(TEXTS)
    assert dataset.val.n_documents > 0


def test_reading_outside_the_stream_is_an_error(dataset: Dataset) -> None:
    n = dataset.train.n_tokens
    for start, count in ((n - 1, 2), (-1, 1), (0, -1)):
        with pytest.raises(IndexError):
            dataset.train.read(start, count)


def test_no_more_files_stay_open_than_allowed(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.data.split.OPEN_FILES", 3)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    dataset.train.read(0, dataset.train.n_tokens)
    assert len(dataset.train.shards) > 6
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    dataset.train.close()


def test_one_flipped_bit_is_refused_even_with_size_and_time_put_back(dataset: Dataset) -> None:
    open_dataset(dataset.path)
    path = dataset.train.shards[0].path
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[500] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match=r"train_000000\.npy is not the file that was prepared"):
        open_dataset(dataset.path)


def test_what_was_verified_is_not_read_again(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def count(path: Path) -> str:
        hashed.append(path)
        return real(path)

    real = verify.sha256_file
    monkeypatch.setattr(verify, "sha256_file", count)
    open_dataset(dataset.path)
    everything = len(dataset.train.shards) + len(dataset.val.shards)
    assert len(hashed) == everything
    open_dataset(dataset.path)
    assert len(hashed) == everything
    os.utime(dataset.val.shards[0].path)
    open_dataset(dataset.path)
    assert len(hashed) == everything + 1
    verify_shards(dataset.train.shards, fresh=True)
    assert len(hashed) == 2 * everything + 1 - len(dataset.val.shards)


@pytest.mark.parametrize("damage", ["cut", "missing", "json", "format", "dtype", "tokenizer", "tokens"])
def test_damage_is_named(dataset: Dataset, damage: str) -> None:
    info = json.loads((dataset.path / "dataset.json").read_bytes())
    shard = dataset.val.shards[0].path
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-2])
    elif damage == "missing":
        shard.unlink()
    elif damage == "tokenizer":
        Tokenizer.gpt2().save(dataset.path)
    elif damage == "json":
        (dataset.path / "dataset.json").write_text("{")
    else:
        info.update({"format": {"format": "other"}, "dtype": {"dtype": "uint32"}, "tokens": {}}[damage])
        info["train"]["tokens"] += damage == "tokens"
        (dataset.path / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError) as caught:
        open_dataset(dataset.path)
    assert str(dataset.path) in str(caught.value)
    assert "prepare" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_tokenizer_is_refused(dataset: Dataset) -> None:
    open_dataset(dataset.path, tokenizer=Tokenizer.bytes())
    with pytest.raises(DataError, match="another tokenizer than gpt2"):
        open_dataset(dataset.path, tokenizer=Tokenizer.gpt2())


def test_a_vocabulary_that_was_changed_is_told_from_another_tokenizer(dataset: Dataset) -> None:
    place = dataset.path / "dataset.json"
    place.write_text(json.dumps(json.loads(place.read_bytes()) | {"vocab_size": 300}))
    with pytest.raises(
        DataError, match=r"dataset\.json states a vocabulary of 300 ids, .* tokenizer has 257"
    ):
        open_dataset(dataset.path, tokenizer=Tokenizer.bytes())


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset at"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match="is no dataset"):
        open_dataset(tmp_path, tokenizer=Tokenizer.bytes())
    (tmp_path / "d.partial").mkdir()
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(tmp_path / "d")


def test_header_is_what_numpy_reads(tmp_path: Path) -> None:
    for dtype, count in ((np.dtype("<u2"), 3), (np.dtype("<u4"), 100_000_000), (np.dtype("<u4"), 10**13)):
        header = npy_header(dtype, count)
        path = tmp_path / "x.npy"
        path.write_bytes(header)
        with open(path, "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == ((count,), False, dtype)
            assert file.tell() == shards.NPY_HEADER_BYTES


IDS = np.random.default_rng(0).integers(0, 50257, 5000).astype(np.uint16)


def write_foreign(kind: str, folder: Path, ids: np.ndarray = IDS) -> None:
    """The three layouts, as those projects' scripts write them."""
    folder.mkdir()
    parts = {"train_000001": ids[:3000], "train_000002": ids[3000:4000], "val_000000": ids[4000:]}
    if kind == "build-nanogpt":
        for name, part in parts.items():
            np.save(folder / f"edufineweb_{name}.npy", part)
    elif kind == "llm.c":
        for name, part in parts.items():
            header = np.zeros(256, dtype=np.int32)
            header[:3] = 20240520, 1, len(part)
            (folder / f"fineweb_{name}.bin").write_bytes(header.tobytes() + part.tobytes())
    else:
        ids[:4000].tofile(folder / "train.bin")
        ids[4000:].tofile(folder / "val.bin")


@pytest.mark.parametrize("kind", ["build-nanogpt", "llm.c", "nanoGPT"])
def test_foreign_folders_are_read_as_they_are_and_converted(tmp_path: Path, kind: str) -> None:
    tokenizer = Tokenizer.gpt2()
    write_foreign(kind, tmp_path / "theirs")
    with pytest.raises(DataError, match="name it with --tokenizer"):
        open_dataset(tmp_path / "theirs")
    theirs = open_dataset(tmp_path / "theirs", tokenizer=tokenizer)
    assert theirs.info["format"] == kind
    assert np.array_equal(theirs.train.read(2990, 20), IDS[2990:3010])
    assert np.array_equal(theirs.val.read(0, 1000), IDS[4000:])
    assert theirs.train.n_documents == int((IDS[:4000] == 50256).sum())
    assert theirs.train.n_bytes == int(tokenizer.id_bytes()[IDS[:4000]].sum())
    ours = convert_shards(tmp_path / "theirs", tmp_path / "ours", tokenizer, 1500)
    opened = open_dataset(ours.path, tokenizer=tokenizer)
    assert [shard.tokens for shard in opened.train.shards] == [1500, 1500, 1000]
    assert np.array_equal(opened.train.read(0, 4000), IDS[:4000])
    assert (opened.val.n_documents, opened.val.n_bytes) == (theirs.val.n_documents, theirs.val.n_bytes)
    before = {path.name: path.stat().st_mtime_ns for path in ours.path.iterdir()}
    convert_shards(tmp_path / "theirs", tmp_path / "ours", tokenizer, 1500)
    assert before == {path.name: path.stat().st_mtime_ns for path in ours.path.iterdir()}
    with pytest.raises(OutputError, match="different: shard_tokens"):
        convert_shards(tmp_path / "theirs", tmp_path / "ours", tokenizer, 1501)


def test_an_id_outside_the_vocabulary_is_an_error_not_a_wrap_around(tmp_path: Path) -> None:
    write_foreign("nanoGPT", tmp_path / "theirs")
    small = Tokenizer.bytes()
    with pytest.raises(DataError, match=r"holds id \d+ near position 0, outside the vocabulary of 257"):
        convert_shards(tmp_path / "theirs", tmp_path / "ours", small, 1000)
    with pytest.raises(UsageError, match="--shard-tokens is 0"):
        convert_shards(tmp_path / "theirs", tmp_path / "ours", Tokenizer.gpt2(), 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]
    (tmp_path / "signed").mkdir()
    np.save(tmp_path / "signed" / "train.npy", np.array([1, 2, -3], dtype=np.int32))
    with pytest.raises(DataError, match="holds id -3"):
        open_dataset(tmp_path / "signed", tokenizer=small).train.read(0, 3)


@pytest.mark.parametrize("fault", ["cut", "count", "version", "odd", "floats", "matrix", "text", "mixed"])
def test_foreign_files_that_are_not_what_they_seem(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "theirs"
    write_foreign("llm.c", folder)
    path = folder / "fineweb_train_000001.bin"
    data = path.read_bytes()
    if fault == "cut":
        path.write_bytes(data[:-10])
    elif fault == "count":
        path.write_bytes(data + bytes(2))
    elif fault == "version":
        path.write_bytes(data[:4] + bytes([9]) + data[5:])
    elif fault == "mixed":
        shutil.copy(path, folder / "x_train.bin")
        (folder / "x_train.bin").write_bytes(data[foreign.LLMC_HEADER_BYTES :])
    else:
        shutil.rmtree(folder)
        folder.mkdir()
        if fault == "odd":
            (folder / "train.bin").write_bytes(b"123")
        elif fault == "floats":
            np.save(folder / "train.npy", np.zeros(5))
        elif fault == "matrix":
            np.save(folder / "train.npy", np.zeros((5, 5), dtype=np.uint16))
        else:
            (folder / "train.npy").write_text("not an array")
    with pytest.raises(DataError) as caught:
        open_dataset(folder, tokenizer=Tokenizer.gpt2())
    assert "\n" not in str(caught.value)
