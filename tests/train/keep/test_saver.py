import random
import threading
import time

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import CheckpointError, OutputError
from myna.model import checkpoint
from myna.model.checkpoint import TRAIN_TENSORS, list_checkpoints, verify
from myna.model.weights import config_files, read_safetensors
from myna.train.keep import saver as saving
from myna.train.keep.saver import Retention, Saver
from myna.train.keep.snapshot import Camera
from myna.train.machines.ranks import Ranks
from myna.train.optimizers import adamw
from myna.train.state import TrainState


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=257))


@pytest.fixture
def camera(model):
    """Of the model and an optimizer that has made a step."""
    optimizer = adamw.build(model, 1e-3, adamw.AdamWOptions())
    for name, parameter in model.named_parameters():
        parameter.grad = model.padded(name, model.unpadded(name, torch.ones_like(parameter)))
    optimizer.step()
    return Camera(model, optimizer, None, Ranks(0, 1, torch.device("cpu")))


@pytest.fixture
def begin(camera):
    """Has a saver write a step, as a run does it."""

    def begin(saver, step):
        saver.join()
        saver.begin(camera.take(TrainState(dataset="d", recipe={}, step=step)))

    return begin


@pytest.fixture
def make(model, tmp_path):
    """Makes a saver."""

    def make(said=None, **kept):
        folder, files = tmp_path / "checkpoints", config_files(model, Tokenizer.bytes())
        say = print if said is None else said.append
        return Saver(folder, model, files, Tokenizer.bytes(), Retention(**kept), say=say)

    return make


def test_a_snapshot_is_exact_while_training_changes_the_weights(
    model, camera, make, begin, tmp_path, monkeypatch
):
    """The write waits until every weight was changed after the snapshot."""
    changed, before = threading.Event(), [p.clone() for p in model.parameters()]
    moments = {name: tensor.clone() for name, tensor in camera.optimizer.named_state().items()}
    write = saving.save_checkpoint

    def late(*args, **parts):
        assert changed.wait(10)
        write(*args, **parts)

    monkeypatch.setattr(saving, "save_checkpoint", late)
    with make() as saver:
        begin(saver, 1)
        with torch.no_grad():
            for tensor in (*model.parameters(), *camera.optimizer.named_state().values()):
                tensor.add_(1.0)
        changed.set()
    path = tmp_path / "checkpoints" / "step_00000001"
    verify(path)
    assert all(torch.equal(a, b) for a, b in zip(GPT.from_pretrained(path).parameters(), before, strict=True))
    saved = read_safetensors(path / TRAIN_TENSORS)
    assert saved.keys() == moments.keys()
    for key, tensor in moments.items():
        expected = model.unpadded(key.partition(".")[2], tensor)
        assert np.array_equal(saved[key], expected.numpy()), key


def test_the_step_goes_on_and_one_write_is_in_flight_at_most(make, begin, tmp_path, monkeypatch):
    release, running, most = threading.Event(), [], []
    write = saving.save_checkpoint

    def slow(path, *args, **parts):
        running.append(path)
        most.append(len(running))
        assert release.wait(10)
        write(path, *args, **parts)
        running.remove(path)

    monkeypatch.setattr(saving, "save_checkpoint", slow)
    with make() as saver:
        begin(saver, 1)  # returns, though nothing is written yet
        assert not (tmp_path / "checkpoints").exists()
        threading.Timer(0.1, release.set).start()
        begin(saver, 2)
        assert (tmp_path / "checkpoints" / "step_00000001").exists()  # the second waited for the first
    assert most == [1, 1]
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == ["step_00000002", "step_00000001"]


def broken(*args, **parts):
    raise OutputError("no room")


def test_the_writers_error_is_told_once_and_by_whoever_comes_next(make, begin, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "save_checkpoint", broken)
    saver = make()
    begin(saver, 1)
    while not saver.failed():
        time.sleep(0.001)
    with pytest.raises(OutputError, match="no room"):
        begin(saver, 2)
    saver.join()
    with pytest.raises(OutputError, match="no room"), saver:
        begin(saver, 3)


def test_beside_another_error_the_writers_is_said(make, begin, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "save_checkpoint", broken)
    said = []
    saver = make(said)
    begin(saver, 1)
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
def test_retention(make, begin, tmp_path, kept, left):
    with make(**kept) as saver:
        for step in range(1, 8):
            begin(saver, step)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [f"step_{n:08d}" for n in left]


def test_retention_whatever_it_is_never_takes_the_newest():
    chance = random.Random(0)
    for _ in range(500):
        steps = chance.sample(range(1, 1000), chance.randrange(1, 12))
        retention = Retention(chance.randrange(4), chance.randrange(300))
        kept = retention.kept(steps)
        assert max(steps) in kept <= set(steps)


def test_a_new_checkpoint_that_does_not_verify_replaces_none(make, begin, tmp_path, monkeypatch):
    """Written well, and then not what the disk gives back."""
    write = saving.save_checkpoint

    def rotten(path, *args, **parts):
        write(path, *args, **parts)
        if path.name.endswith("2"):
            (path / "model.safetensors").write_bytes(b"")

    monkeypatch.setattr(saving, "save_checkpoint", rotten)
    saver = make(keep_last=1)
    begin(saver, 1)
    begin(saver, 2)
    with pytest.raises(CheckpointError, match="damaged"):
        saver.join()
    verify(tmp_path / "checkpoints" / "step_00000001")


def test_the_manifest_holds_what_lies_on_the_disk(make, begin, tmp_path):
    """Large files are hashed while they are written: the same as reading them."""
    with make() as saver:
        begin(saver, 1)
    path = tmp_path / "checkpoints" / "step_00000001"
    manifest = (path / "manifest.json").read_bytes()
    assert checkpoint._manifest(path, {}) == manifest
