"""Other projects' token files: read as they are, converted, refused where they are not what they seem."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from myna.cli import main
from myna.data.other_projects import LLMC_HEADER_BYTES, remark_on
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


def characters(count: int) -> np.ndarray:
    """Ids of a character-level file: nanoGPT's 65 characters, of which 0 and 1 are newline and space."""
    rng = np.random.default_rng(1)
    ids = np.where(rng.random(count) < 0.2, rng.integers(0, 2, count), rng.integers(2, 65, count))
    return ids.astype("<u2")


WIDE = IDS.astype("<u4") * 2  # up to 100,512, as GPT-4's vocabulary has
PROSE = (Path(__file__).parents[2] / "docs" / "tokenizer.md").read_text("utf-8")
HEADER = np.array([7, 1, 5000], dtype="<i4").tobytes()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (np.array([10758, 3367] * 64, dtype="<u4").tobytes(), "as in uint32 or big-endian ids"),
        (IDS.astype("<u4").tobytes(), "as in uint32 or big-endian ids"),
        (WIDE.tobytes(), "as in uint32 or big-endian ids"),
        ((WIDE * 2).tobytes(), "as in uint32 or big-endian ids"),
        (IDS.astype("<i8").tobytes(), "as in uint32 or big-endian ids"),
        (IDS.astype(">u4").tobytes(), "as in uint32 or big-endian ids"),
        (characters(5000).astype(">u2").tobytes(), "as in uint32 or big-endian ids"),
        (characters(5000).astype("<u4").tobytes(), "as in uint32 or big-endian ids"),
        (characters(5000).astype("u1").tobytes(), "as in uint8 or big-endian ids"),
        ((characters(5000) + 60).astype("u1").tobytes(), "as in uint8 or big-endian ids"),
        (("Größe, naïve; съешь ещё этих булок. " + PROSE).encode()[:6000], "as in uint8 or big-endian ids"),
        (characters(20_000)[:1000].astype("u1").tobytes(), "as in uint8 or big-endian ids"),
        (IDS[:60].astype("<u4").tobytes(), "as in uint32 or int64 ids"),
        (IDS[:8].astype("<u4").tobytes(), "as in uint32 or int64 ids"),
        (IDS[:8].astype(">u4").tobytes(), "as in uint32 or int64 ids"),
        (IDS[:8].astype("<i8").tobytes(), "as in uint32 or int64 ids"),
        (HEADER.ljust(LLMC_HEADER_BYTES, b"\0") + IDS.tobytes(), "begins with a header that is not known"),
        (HEADER.ljust(256 * 8, b"\0") + IDS.tobytes(), "begins with a header that is not known"),
    ],
)
def test_a_bin_that_is_not_uint16(
    tmp_path: Path, data: bytes, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    IDS.tofile(theirs / "val.bin")
    (theirs / "train.bin").write_bytes(data)
    assert main(["data", "show", str(theirs), "--tokenizer", "gpt2"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{theirs / 'train.bin'} is no file of uint16 ids" in said
    assert why in said


def test_a_bin_that_is_uint16_is_never_taken_for_another(tmp_path: Path) -> None:
    """Ids of text, of characters, few ids, and ids that are all equal."""
    tokenizer = Tokenizer.gpt2()
    text = "Wait! What? 1 2 3 4 !!!! ! ! ! !!\n" * 200
    samples = [IDS, characters(200_000), np.array(tokenizer.encode(text), dtype="<u2")]
    samples += [characters(128)[start:] for start in range(64)]
    prose = np.array(tokenizer.encode(PROSE), dtype="<u2")
    samples += [prose[start : start + size] for size in (8, 64, 200, 1000) for start in range(0, 2000, 250)]
    samples += [
        np.zeros(5000, dtype="<u2"),
        np.full(5000, 3, dtype="<u2"),
        np.array([0, 9] * 60, dtype="<u2"),
    ]
    for number, ids in enumerate(samples):
        folder = tmp_path / str(number)
        folder.mkdir()
        ids.tofile(folder / "train.bin")
        assert np.array_equal(open_dataset(folder, tokenizer=tokenizer).train.read(0, len(ids)), ids)


@pytest.mark.parametrize("name", ["train_val_000.npy", "retrieval_constraints.npy", "trainval.bin"])
def test_a_name_that_says_both_splits_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    write_theirs("build-nanogpt", theirs)
    (theirs / name).write_bytes((theirs / "edufineweb_val_000000.npy").read_bytes())
    call = ["prepare", "--from-shards", str(theirs), "--tokenizer", "gpt2", "--out", str(tmp_path / "ours")]
    assert main(call) == 2
    assert f"{theirs / name}: does its name say train or val?" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def test_each_file_enters_one_split(tmp_path: Path) -> None:
    names = {
        "retrieval_train_0.npy": "train",
        "constraints_val_0.npy": "val",
        "tinytrain.npy": "train",
        "TinyStories_val.npy": "val",
        "evaluation.npy": "val",
        "pretraining_02.npy": "train",
    }
    for name in names:
        np.save(tmp_path / name, IDS)
    opened = open_dataset(tmp_path, tokenizer=Tokenizer.gpt2())
    for split in ("train", "val"):
        found = [shard["file"] for shard in opened.info[split]["shards"]]
        assert found == sorted(name for name, said in names.items() if said == split)


@pytest.mark.parametrize("meta", [False, True])
def test_ids_of_another_tokenizer_get_a_remark(
    tmp_path: Path, meta: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    write_theirs("nanoGPT", theirs, characters(50_000))
    if meta:
        (theirs / "meta.pkl").write_bytes(b"never opened")
    remark = f"{theirs}: the largest id found in it is 64, far from the tokenizer's 50,257 ids"
    remark += ", and meta.pkl says that it has a vocabulary of its own" * meta
    remark += "; name the tokenizer that made it, or the text will be another"
    convert = [
        "prepare",
        "--from-shards",
        str(theirs),
        "--tokenizer",
        "gpt2",
        "--out",
        str(tmp_path / "ours"),
    ]
    for call in (["data", "show", str(theirs), "--tokenizer", "gpt2"], convert):
        assert main(call) == 0
        assert capsys.readouterr().out.splitlines().count(remark) == 1


def test_training_says_the_remark_once(tmp_path: Path) -> None:
    from myna.commands.train_call import TrainCall
    from myna.commands.train_data import open_data
    from myna.recipes import RECIPES

    theirs = tmp_path / "theirs"
    write_theirs("nanoGPT", theirs, characters(50_000))
    said: list[str] = []
    for is_main in (True, False):
        ranks: Any = SimpleNamespace(is_main=is_main, barrier=lambda: None)
        open_data(TrainCall(data=(str(theirs),)), RECIPES["gpt2-124m"](), ranks, said.append, begins=True)
    assert len(said) == 1
    assert "the largest id found in it is 64" in said[0]


def test_no_remark_where_none_is_due(tmp_path: Path) -> None:
    gpt2, small = Tokenizer.gpt2(), Tokenizer.bytes()
    text = np.array(gpt2.encode("It is a truth universally acknowledged, that a man is in want. " * 100))
    some = [("text", text, gpt2), ("few", characters(999), gpt2), ("bytes", characters(50_000), small)]
    for name, ids, tokenizer in some:
        write_theirs("nanoGPT", tmp_path / name, np.concatenate([ids.astype("<u2")] * 8)[: len(ids) + 4000])
        (tmp_path / name / "val.bin").unlink()
        ids.astype("<u2").tofile(tmp_path / name / "train.bin")
        assert remark_on(open_dataset(tmp_path / name, tokenizer=tokenizer)) is None
    (tmp_path / "bytes" / "meta.pkl").write_bytes(b"")
    assert "far from the tokenizer's 257" in str(remark_on(open_dataset(tmp_path / "bytes", tokenizer=small)))


@pytest.mark.parametrize("kind", ["build-nanogpt", "llm.c", "nanoGPT"])
def test_files_that_cannot_be_read_are_not_called_damaged(
    kind: str, open_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    theirs, tokenizer = open_folder / "theirs", Tokenizer.gpt2()
    write_theirs(kind, theirs)
    open_dataset(theirs, tokenizer=tokenizer)
    for path in (min(theirs.glob("*val*")), theirs):
        os.chmod(path, 0)
        try:
            with as_nobody(), pytest.raises(DataError) as caught:
                open_dataset(theirs, tokenizer=tokenizer)
        finally:
            os.chmod(path, 0o777)
        assert "cannot read" in str(caught.value)
        assert f"{path}: Permission denied; see who may read it" in str(caught.value)
