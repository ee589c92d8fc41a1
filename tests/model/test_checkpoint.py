import random
import shutil

import numpy as np
import pytest
import torch

from myna import GPT, Tokenizer
from myna.errors import CheckpointError, ModelError, OutputError
from myna.model import checkpoint
from myna.model.open import open_model


@pytest.fixture
def saved(save_tiny, tmp_path):
    path = tmp_path / "run" / "checkpoints" / checkpoint.checkpoint_name(5)
    return path, save_tiny(path, state={"samples": 40, "learning_rate": 0.1})


def test_everything_comes_back_bit_for_bit(saved):
    path, model = saved
    checkpoint.verify(path)
    tensors, state = checkpoint.load_train_files(path)
    assert state == {"samples": 40, "learning_rate": 0.1}
    assert tensors.keys() == {f"exp_avg.{name}" for name, _ in model.named_parameters()}
    for name, weight in model.named_parameters():
        assert np.array_equal(tensors[f"exp_avg.{name}"], model.unpadded(name, weight).detach()), name
    opened = open_model(path)
    assert all(torch.equal(a, b) for a, b in zip(opened.model.parameters(), model.parameters(), strict=True))
    assert opened.tokenizer.n_vocab == 257


def test_a_run_is_a_model_too(saved):
    """Its newest sound checkpoint."""
    path, model = saved
    loaded = GPT.from_pretrained(path.parents[1])
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("content", ["[]", "3", "{", "\udcff"])
def test_a_training_state_that_is_none_is_refused(saved, content):
    path, _ = saved
    (path / "train_state.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        CheckpointError, match=r"train_state\.json (is not JSON|holds no JSON object).*; use another"
    ):
        checkpoint.load_train_files(path)


def test_one_flipped_bit_anywhere_is_refused(saved):
    path, _ = saved
    chance = random.Random(0)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for _ in range(20):
            at = chance.randrange(len(whole))
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
            with pytest.raises(CheckpointError):
                checkpoint.verify(path)
        file.write_bytes(whole[: chance.randrange(len(whole))])
        with pytest.raises(CheckpointError):
            checkpoint.verify(path)
        file.write_bytes(whole)
    checkpoint.verify(path)


def test_a_missing_file_is_named(saved):
    path, _ = saved
    (path / "train_state.json").unlink()
    with pytest.raises(CheckpointError, match=r"train_state\.json is missing"):
        checkpoint.verify(path)


def test_a_sound_checkpoint_is_never_written_twice_and_a_damaged_one_is_set_aside(saved, save_tiny):
    path, _ = saved
    before = (path / "manifest.json").stat().st_mtime_ns
    save_tiny(path, state={"samples": 41})
    assert (path / "manifest.json").stat().st_mtime_ns == before
    (path / "config.json").write_text("{}")
    save_tiny(path, state={"samples": 41})
    checkpoint.verify(path)
    assert checkpoint.load_train_files(path)[1] == {"samples": 41}
    assert (path.parent / "step_00000005.damaged").is_dir()


def test_the_newest_sound_one_is_found_past_damaged_ones(saved):
    path, _ = saved
    newer = path.parent / checkpoint.checkpoint_name(7)
    shutil.copytree(path, newer)
    (newer / "model.safetensors").write_bytes(b"")
    (path.parent / "step_00000009.tmp").mkdir()
    damaged = []
    assert checkpoint.newest_sound(path.parent, lambda p, error: damaged.append(p)) == path
    assert damaged == [newer]
    with pytest.warns(UserWarning, match="step_00000007"):
        opened = open_model(path.parents[1])
    assert opened.path == path


def test_a_run_without_a_sound_checkpoint_says_so(saved):
    path, _ = saved
    (path / "manifest.json").unlink()
    with (
        pytest.warns(UserWarning, match="manifest"),
        pytest.raises(CheckpointError, match="no sound checkpoint"),
    ):
        open_model(path.parents[1])


def test_a_tokenizer_larger_than_the_model_is_refused(saved):
    path, model = saved
    folder = path.parents[2] / "folder"
    model.save_pretrained(folder)
    Tokenizer.gpt2().save(folder)
    with pytest.raises(ModelError, match="don't belong together"):
        print(open_model(folder).tokenizer)


def test_a_write_that_fails_leaves_nothing(saved, save_tiny, monkeypatch):
    path, _ = saved

    def full(*args):
        raise OSError(28, "No space left")

    monkeypatch.setattr(checkpoint, "write_safetensors", full)
    with pytest.raises(OutputError, match="No space left"):
        save_tiny(path.parent / checkpoint.checkpoint_name(6))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
