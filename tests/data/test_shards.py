"""The shard format: written, opened, verified, read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from myna.data import shards, verify
from myna.data.prepare import prepare
from myna.data.shards import npy_header, open_dataset, verify_shards
from myna.data.split import Dataset
from myna.errors import DataError
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

    def count(path: Path, *rest: object) -> str:
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
        DataError, match=r"dataset\.json says vocab_size 300, .* tokenizer .* has 257 ids; .*put 257 back"
    ):
        open_dataset(dataset.path, tokenizer=Tokenizer.bytes())


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset at"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match=r"is no dataset: .*; give a folder that `myna prepare` made"):
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda info: [], "it is [], not a JSON object"),
        (lambda info: {}, "its field format is missing"),
        (
            lambda info: info | {"vocab_size": "257"},
            "its field vocab_size is '257', not a whole number of 0 or more",
        ),
        (lambda info: info | {"dtype": "float"}, "its field dtype is 'float', and 257 ids need 'uint16'"),
        (lambda info: {key: info[key] for key in info if key != "source"}, "its field source is missing"),
        (lambda info: info | {"train": []}, "its field train is [], not a JSON object"),
        (lambda info: info | {"val": {"shards": [1]}}, "its field val.shards is 1, not a JSON object"),
        (lambda info: info | {"val": {"shards": [{}]}}, "its field val.shards.tokens is missing"),
        (
            lambda info: info | {"val": info["val"] | {"tokens": 1}},
            "its field val.tokens is 1, and the shards have ",
        ),
    ],
)
def test_the_field_that_is_wrong_is_named(
    dataset: Dataset, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    place = dataset.path / "dataset.json"
    place.write_text(json.dumps(change(json.loads(place.read_bytes()))))
    with pytest.raises(DataError) as caught:
        open_dataset(dataset.path)
    assert f"{place} is damaged ({says}" in str(caught.value)
    assert str(caught.value).endswith("; prepare the dataset again")
