"""The start of `myna train`: what is refused before anything is written, and how a run is taken up again."""

import errno
import json
import os

import pytest

from myna import Tokenizer, files
from myna.commands import train as command
from myna.commands import train_start as command_start
from myna.data.prepare import prepare
from myna.errors import UsageError


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--tokenizer", "gpt2"], "another tokenizer"),
        (["--micro-batch", "3"], "give --micro-batch 2, or --batch-tokens 192 or 288"),
        (["--block-size", "100000", "--sequence-length", "100000", "--batch-tokens", "100000"], "window"),
        (["--data", "absent"], "absent"),
        (["--data", __file__], "test_train_start.py"),
        (["--shard", "fsdp", "--precision", "fp16"], "cannot scale fp16"),
        (["--hellaswag", "absent.jsonl"], "absent.jsonl"),
        (["--n-embd", str(2**40)], "model shape: n_embd is"),
        (["--n-embd", str(2**22)], "parameters does not fit the memory of cpu: weights, gradients"),
        (["--copy-to", "nosuch://bucket/x"], "give a URL that fsspec knows"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("out", ["run", "several/new/run"])
def test_bad_input_is_a_line_and_leaves_no_folder(refused, tmp_path, out, more, says):
    assert says in refused("--out", tmp_path / out, "--steps", 1, *more)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_the_data_is_read(refused, tmp_path, monkeypatch):
    """As on a full disk, or over a quota: names can be made, bytes cannot be written."""

    def write(descriptor, data):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        said = refused("--out", tmp_path / "several" / "new" / "run", "--data", "absent")
    assert "cannot write to the folder" in said
    assert os.strerror(errno.EDQUOT) in said
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_on_another_disk_are_tried_too(refused, train, tmp_path, monkeypatch):
    run, disk = tmp_path / "run", tmp_path / "disk"
    run.mkdir()
    (run / "checkpoints").symlink_to(disk)
    said = refused("--out", run, "--data", "absent")
    assert f"{run / 'checkpoints'} is a link to {disk}, which is not there" in said
    disk.mkdir()
    write = files.write_synced

    def full(path, data):
        if path.parent == run / "checkpoints":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_synced", full)
        said = refused("--out", run, "--data", "absent")
    assert f"cannot write to the folder {run / 'checkpoints'}: No space left on device" in said
    assert [p.name for p in run.iterdir()] == ["checkpoints"]
    assert list(disk.iterdir()) == []
    train(run, 1)
    assert [p.name for p in disk.iterdir()] == ["step_00000001"]


def test_a_link_that_leads_nowhere_is_no_folder_for_a_run(refused, tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    said = refused("--out", tmp_path / "run" / "first")
    assert f"{tmp_path / 'run'} is a link to {tmp_path / 'disk'}, which is not there; mount or make" in said


def test_a_finished_run_asks_for_no_room(train, tmp_path, monkeypatch, capsys):
    """Its checkpoints may be on a disk that is read-only by now."""
    train(tmp_path / "run", 1)
    monkeypatch.setattr(command_start, "try_checkpoints", None)
    train(tmp_path / "run", 1)
    assert "is finished" in capsys.readouterr().out


def test_bad_input_leaves_a_folder_that_was_there_and_what_is_in_it(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    refused("--out", tmp_path / "run", "--data", "absent")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_run_is_not_mixed_into_a_dataset(refused, small_dataset):
    before = sorted(small_dataset.iterdir())
    assert "is a dataset; give another --out" in refused("--out", small_dataset)
    assert sorted(small_dataset.iterdir()) == before


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(train, hashes, tmp_path, capsys):
    whole = train(tmp_path / "whole", 6)
    run = train(tmp_path / "run", 6, "--checkpoint-every", 2)
    newest = run.checkpoints / "step_00000006" / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    train(tmp_path / "run", 6, "--checkpoint-every", 2)
    said = capsys.readouterr().out
    assert "step_00000006.damaged" in said
    assert "resuming after step 4" in said
    assert hashes(run.path, 6) == hashes(whole.path, 6)


def test_a_resume_keeps_the_micro_batch_that_auto_chose(train, tmp_path):
    args = (tmp_path / "run", 2, "--micro-batch", "auto", "--checkpoint-every", 1)
    run = train(*args)
    assert run.recipe()["micro_batch"] == 8
    run.recipe_path.write_text(json.dumps(run.recipe() | {"micro_batch": 2}))
    (run.checkpoints / "step_00000002").rename(tmp_path / "away")
    train(*args)
    assert run.recipe()["micro_batch"] == 2


def test_a_resume_may_need_a_scaler_that_the_run_had_not(train, tmp_path):
    """As where `auto` meant bf16 before, and the machine now has fp16 alone."""
    run = train(tmp_path / "run", 1)
    train(tmp_path / "run", 2, "--precision", "fp16", "--override")
    assert [r["step"] for r in run.metrics() if "train_loss" in r] == [1, 2]


def test_other_data_is_refused_on_resume(train, tmp_path, capsys):
    train(tmp_path / "run", 2, "--checkpoint-every", 1)
    (tmp_path / "other.txt").write_text("another text\n" * 500)
    prepare([str(tmp_path / "other.txt")], tmp_path / "other", Tokenizer.bytes(), workers=1)
    (tmp_path / "run" / "checkpoints" / "step_00000002").rename(tmp_path / "away")
    with pytest.raises(UsageError, match=r"other data.*or go on with --override"):
        train(tmp_path / "run", 2, "--data", tmp_path / "other")
    run = train(tmp_path / "run", 2, "--data", tmp_path / "other", "--override")
    assert "going on with other data" in capsys.readouterr().out
    assert (run.checkpoints / "step_00000002").exists()


def test_what_a_killed_process_left_is_swept_away(train, tmp_path):
    left = tmp_path / "run" / "checkpoints" / ".step_00000003.99999.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    train(tmp_path / "run", 1)
    assert not left.exists()


def test_several_epochs_are_told_and_go_on(train, tmp_path, capsys):
    train(tmp_path / "run", 1, "--batch-tokens", 64 * 1024, "--micro-batch", 256)
    said = capsys.readouterr().out
    assert "1.22 epochs in 1 step of" in said
    assert "the data will be gone through 1.2 times, in another order each time" in said


def test_another_corpus_is_not_taken_for_the_one_that_is_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--eval-every", "0", "--sample-every", "0"]
    command.main(["pydoc", "--steps", "1", *small, "--out", "r1"])
    with pytest.raises(UsageError, match="was prepared from pydoc, and this run wants shakespeare"):
        command.main(["pydoc", "--corpus", "shakespeare", "--steps", "1", "--out", "r2"])
    assert not (tmp_path / "r2").exists()
