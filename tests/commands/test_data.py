"""`myna data show` and `myna prepare`, as a person meets them."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from myna.cli import main
from myna.commands.train import read_call
from myna.data.shards import open_dataset
from myna.data.show import histogram, sample_split


@pytest.fixture
def dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    source = tmp_path / "a.jsonl"
    source.write_text(
        "".join(json.dumps({"text": f"Text number {n}.\n" * (n % 5 + 1)}) + "\n" for n in range(100))
    )
    out = tmp_path / "data"
    assert (
        main(["prepare", str(source), "--out", str(out), "--tokenizer", "bytes", "--shard-tokens", "1000"])
        == 0
    )
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed
    call = re.search(r"^next: myna train (.+)$", printed, re.MULTILINE)
    assert read_call(shlex.split(call[1])).data == (f"{out}",)
    assert "documents" in printed
    return out


def test_show_tells_what_is_there(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(dataset)]) == 0
    output = capsys.readouterr().out
    opened = open_dataset(dataset)
    for split in (opened.train, opened.val):
        assert f"{split.n_documents:,}" in output
        assert f"{split.n_tokens:,}" in output
        assert f"{split.n_bytes / split.n_tokens:.3f}" in output
    assert "Text number" in output
    assert "⏎⏎ document ⏎⏎" in output
    assert "most common tokens" in output
    assert "verified" not in output


def test_verify_reads_all_and_finds_one_bit(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(dataset), "--verify"]) == 0
    assert "each is what was prepared" in capsys.readouterr().out
    path = dataset / "val_000000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)
    assert main(["data", "show", str(dataset), "--verify"]) == 2
    assert "val_000000.npy is not the file that was prepared" in capsys.readouterr().err


def test_other_projects_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    np.array([50256, 15496, 995] * 50, dtype=np.uint16).tofile(folder / "train.bin")
    assert main(["data", "show", str(folder)]) == 2
    assert "name it with --tokenizer" in capsys.readouterr().err
    assert main(["data", "show", str(folder), "--tokenizer", "gpt2"]) == 0
    assert "Hello world" in capsys.readouterr().out
    assert main(["data", "show", str(folder), "--tokenizer", "gpt2", "--verify"]) == 2
    assert "states no hashes" in capsys.readouterr().err
    arguments = ["prepare", "--from-shards", str(folder), "--out", str(tmp_path / "ours")]
    assert main(arguments) == 0
    assert "50 documents, 150 tokens" in capsys.readouterr().out
    assert main(["data", "show", str(tmp_path / "ours"), "--verify"]) == 0


def test_a_large_split_is_sampled(dataset: Path) -> None:
    train = open_dataset(dataset).train
    whole = sample_split(train, 256)
    assert whole.n_ids == train.n_tokens
    assert len(whole.lengths) == train.n_documents
    assert int(whole.lengths.sum()) == train.n_tokens
    part = sample_split(train, 256, limit=1000)
    assert part.n_ids == 1000
    assert sum(count for *_, count in histogram(part.lengths)) == len(part.lengths) < train.n_documents
    assert part.common[0][1] > part.common[-1][1]


def test_show_without_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(tmp_path / "absent")]) == 2
    assert "make one with `myna prepare CORPUS" in capsys.readouterr().err


def test_a_command_in_a_message_quotes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my data"
    assert main(["data", "show", str(out)]) == 2
    assert f"`myna prepare CORPUS --out '{out}'`" in capsys.readouterr().err
    assert main(["data", "join", str(out)]) == 2
    assert f"`myna prepare CORPUS --part I/N --out '{out}'`" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    call = ["prepare", str(tmp_path / "a.txt"), "--out", str(out), "--tokenizer", "bytes", "--part", "1/2"]
    assert main(call) == 0
    assert f"run: myna data join '{out}'\n" in capsys.readouterr().out
    assert main(["data", "show", str(out)]) == 2
    assert f"run `myna data join '{out}'`" in capsys.readouterr().err


def test_the_number_of_windows_is_0_or_more(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(dataset), "--windows=-1"]) == 2
    said = capsys.readouterr()
    assert said.err == "myna data: --windows is -1; give 1 or more, or 0 for none\n"
    assert said.out == ""
    assert main(["data", "show", str(dataset), "--windows", "0"]) == 0
    assert "train: tokens 0" not in capsys.readouterr().out


def test_a_finished_dataset_is_said_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    out = tmp_path / "data"
    call = ["prepare", str(tmp_path / "a.txt"), "--out", str(out), "--tokenizer", "bytes"]
    for arguments in ([*call, "--part", "1/1"], ["data", "join", str(out)]):
        assert main(arguments) == 0
        assert f"wrote {out}" in capsys.readouterr().out
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert "wrote" not in said
        assert "is there already, so nothing was written; compared: " in said
    assert main(call) == 0
    said = capsys.readouterr().out
    assert f"{out} is there already, so nothing was written; compared: the options, the tokenizer and" in said
    assert main(shlex.split(re.findall(r"myna (data show .+)", said)[0])) == 0


def test_a_vocabulary_size_changed_by_hand_is_blamed_on_dataset_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    out = tmp_path / "data"
    assert main(["prepare", str(tmp_path / "a.txt"), "--out", str(out), "--tokenizer", "bytes"]) == 0
    info = json.loads((out / "dataset.json").read_bytes())
    for size in (100, 300):
        (out / "dataset.json").write_text(json.dumps(info | {"vocab_size": size}))
        capsys.readouterr()
        assert main(["data", "show", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{out / 'dataset.json'} says vocab_size {size}" in said
        assert "dataset.json was changed by hand: put 257 back" in said
        assert "--tokenizer" not in said
