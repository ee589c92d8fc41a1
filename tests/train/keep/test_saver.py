import random
import threading
import time

import pytest
import torch

from myna import GPT, Tokenizer
from myna.errors import CheckpointError, OutputError
from myna.model import checkpoint
from myna.model.checkpoint import list_checkpoints, load_train_state, verify
from myna.model.config import GPTConfig
from myna.train import saver as saving
from myna.train.saver import Retention, Saver, Snapshot

CONFIG = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=257)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(CONFIG)


def make(tmp_path, said=None, **kept):
    return Saver(
        tmp_path / "checkpoints", Tokenizer.bytes(), Retention(**kept), print if said is None else said.append
    )


def begin(saver, model, step):
    saver.join()
    weights = {name: saver.buffers.take(name, p) for name, p in model.state_dict().items()}
    moments = {"exp_avg": {n: saver.buffers.take(f"exp_avg {n}", p) for n, p in model.state_dict().items()}}
    saver.begin(Snapshot(step, CONFIG, weights, moments, {"samples": step}))


def test_a_snapshot_is_exact_while_training_changes_the_weights(model, tmp_path, monkeypatch):
    """The write waits until every weight was changed after the snapshot."""
    changed, before = threading.Event(), [p.clone() for p in model.parameters()]
    write = saving.save_checkpoint

    def late(*args):
        assert changed.wait(10)
        write(*args)

    monkeypatch.setattr(saving, "save_checkpoint", late)
    with make(tmp_path) as saver:
        begin(saver, model, 1)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)
        changed.set()
    path = tmp_path / "checkpoints" / "step_00000001"
    verify(path)
    assert all(torch.equal(a, b) for a, b in zip(GPT.from_pretrained(path).parameters(), before, strict=True))
    tensors, _ = load_train_state(path, model)
    assert torch.equal(tensors["exp_avg"]["wpe.weight"], before[1])


def test_the_step_goes_on_and_one_write_is_in_flight_at_most(model, tmp_path, monkeypatch):
    release, running, most = threading.Event(), [], []
    write = saving.save_checkpoint

    def slow(path, *args):
        running.append(path)
        most.append(len(running))
        assert release.wait(10)
        write(path, *args)
        running.remove(path)

    monkeypatch.setattr(saving, "save_checkpoint", slow)
    with make(tmp_path) as saver:
        begin(saver, model, 1)  # returns, though nothing is written yet
        assert not (tmp_path / "checkpoints").exists()
        threading.Timer(0.1, release.set).start()
        begin(saver, model, 2)
        assert (tmp_path / "checkpoints" / "step_00000001").exists()  # the second waited for the first
    assert most == [1, 1]
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == ["step_00000002", "step_00000001"]


def broken(path, *args):
    raise OutputError("no room")


def test_the_writers_error_is_told_once_and_by_whoever_comes_next(model, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "save_checkpoint", broken)
    saver = make(tmp_path)
    begin(saver, model, 1)
    while not saver.failed():
        time.sleep(0.001)
    with pytest.raises(OutputError, match="no room"):
        begin(saver, model, 2)
    saver.join()
    with pytest.raises(OutputError, match="no room"), saver:
        begin(saver, model, 3)


def test_beside_another_error_the_writers_is_said(model, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "save_checkpoint", broken)
    said = []
    saver = make(tmp_path, said)
    begin(saver, model, 1)
    with pytest.raises(KeyError), saver:
        raise KeyError
    assert said == ["and the last checkpoint was not written: no room"]


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"keep_last": 1}, [7]),
        ({"keep_last": 2, "keep_every": 3}, [3, 6, 7]),
        ({"keep_last": 9}, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_retention(model, tmp_path, kept, left):
    with make(tmp_path, **kept) as saver:
        for step in range(1, 8):
            begin(saver, model, step)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [f"step_{n:08d}" for n in left]


def test_retention_whatever_it_is_never_takes_the_newest():
    chance = random.Random(0)
    for _ in range(500):
        steps = chance.sample(range(1, 1000), chance.randrange(1, 12))
        retention = Retention(chance.randrange(4), chance.randrange(300))
        kept = retention.kept(steps)
        assert max(steps) in kept <= set(steps)


def test_a_new_checkpoint_that_does_not_verify_replaces_none(model, tmp_path, monkeypatch):
    """Written well, and then not what the disk gives back."""
    write = saving.save_checkpoint

    def rotten(path, *args):
        write(path, *args)
        if path.name.endswith("2"):
            (path / "model.safetensors").write_bytes(b"")

    monkeypatch.setattr(saving, "save_checkpoint", rotten)
    saver = make(tmp_path, keep_last=1)
    begin(saver, model, 1)
    begin(saver, model, 2)
    with pytest.raises(CheckpointError, match="damaged"):
        saver.join()
    verify(tmp_path / "checkpoints" / "step_00000001")


def test_the_manifest_holds_what_lies_on_the_disk(model, tmp_path):
    """Large files are hashed while they are written: the same as reading them."""
    with make(tmp_path) as saver:
        begin(saver, model, 1)
    path = tmp_path / "checkpoints" / "step_00000001"
    manifest = (path / "manifest.json").read_bytes()
    assert checkpoint._manifest(path, {}) == manifest
