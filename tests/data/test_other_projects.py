"""Other projects' token files: read as they are, converted, refused where they are not what they seem."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from myna.data.other_projects import LLMC_HEADER_BYTES
from myna.data.prepare.from_shards import convert_shards
from myna.data.shards import open_dataset
from myna.errors import DataError, OutputError, UsageError
from myna.text.tokenizer import Tokenizer

IDS = np.random.default_rng(0).integers(0, 50257, 5000).astype(np.uint16)


def write_theirs(kind: str, folder: Path, ids: np.ndarray = IDS) -> None:
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
def test_their_folders_are_read_as_they_are_and_converted(tmp_path: Path, kind: str) -> None:
    tokenizer = Tokenizer.gpt2()
    write_theirs(kind, tmp_path / "theirs")
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
    write_theirs("nanoGPT", tmp_path / "theirs")
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
def test_files_that_are_not_what_they_seem(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "theirs"
    write_theirs("llm.c", folder)
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
        (folder / "x_train.bin").write_bytes(data[LLMC_HEADER_BYTES:])
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


def test_bytes_are_not_made_up_where_a_tokenizer_changes_text(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"[UNK]": 0, "[SEP]": 1, "a": 2}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.add_special_tokens(["[UNK]", "[SEP]"])
    tokenizer = Tokenizer.from_json(made.to_str().encode())
    write_theirs("nanoGPT", tmp_path / "theirs", IDS % 3)
    theirs = open_dataset(tmp_path / "theirs", tokenizer=tokenizer)
    assert theirs.train.n_documents == int((IDS[:4000] % 3 == 1).sum())
    with pytest.raises(
        DataError, match=r"its ids don't say how many bytes the text had; prepare the text itself"
    ):
        print(theirs.train.n_bytes)
    with pytest.raises(DataError, match=r"theirs: the tokenizer tokenizer\.json changes text"):
        convert_shards(tmp_path / "theirs", tmp_path / "ours", tokenizer, 1500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]
