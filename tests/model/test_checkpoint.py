import random
import shutil

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import CheckpointError, ModelError, OutputError
from myna.model import checkpoint
from myna.model.open import open_model
from myna.model.weights import config_files

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, vocab_size=257)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model, path = GPT(CONFIG), tmp_path / "run" / "checkpoints" / checkpoint.checkpoint_name(5)
    tensors = {"clock": torch.tensor(3.0), "exp_avg wpe.weight": torch.randn(12, 16)}
    save(path, model, tensors)
    return path, model, tensors


def save(path, model, tensors):
    checkpoint.save_checkpoint(
        path,
        model,
        files=config_files(model, Tokenizer.bytes().eot),
        weights=model.state_dict(),
        tokenizer=Tokenizer.bytes(),
        tensors=tensors,
        state={"samples": 40, "learning_rate": 0.1},
    )


def test_everything_comes_back_bit_for_bit(saved):
    path, model, tensors = saved
    checkpoint.verify(path)
    arrays, state = checkpoint.load_train_files(path)
    assert state == {"samples": 40, "learning_rate": 0.1}
    assert arrays.keys() == tensors.keys()
    assert all(torch.equal(torch.from_numpy(arrays[name]), tensors[name]) for name in tensors)
    opened = open_model(path)
    assert all(torch.equal(a, b) for a, b in zip(opened.model.parameters(), model.parameters(), strict=True))
    assert opened.tokenizer.n_vocab == 257


def test_a_run_is_a_model_too(saved):
    """Its newest sound checkpoint."""
    path, model, _ = saved
    loaded = GPT.from_pretrained(path.parents[1])
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_a_training_state_that_is_none_is_named(saved, content):
    path, _, _ = saved
    (path / "train_state.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"train_state\.json"):
        checkpoint.load_train_files(path)


def test_one_flipped_bit_anywhere_is_refused(saved):
    path, _, _ = saved
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
    path, _, _ = saved
    (path / "train_state.json").unlink()
    with pytest.raises(CheckpointError, match=r"train_state\.json is missing"):
        checkpoint.verify(path)


def test_a_sound_checkpoint_is_never_written_twice_and_a_damaged_one_is_set_aside(saved):
    path, model, tensors = saved
    before = (path / "manifest.json").stat().st_mtime_ns
    save(path, model, tensors)
    assert (path / "manifest.json").stat().st_mtime_ns == before
    (path / "config.json").write_text("{}")
    save(path, model, tensors)
    checkpoint.verify(path)
    assert (path.parent / "step_00000005.damaged").is_dir()


def test_the_newest_sound_one_is_found_past_damaged_ones(saved):
    path, _, _ = saved
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
    path, _, _ = saved
    (path / "manifest.json").unlink()
    with (
        pytest.warns(UserWarning, match="manifest"),
        pytest.raises(CheckpointError, match="no sound checkpoint"),
    ):
        open_model(path.parents[1])


def test_a_tokenizer_larger_than_the_model_is_refused(saved):
    path, model, _ = saved
    folder = path.parents[2] / "folder"
    model.save_pretrained(folder)
    Tokenizer.gpt2().save(folder)
    with pytest.raises(ModelError, match="don't belong together"):
        open_model(folder)


def test_a_write_that_fails_leaves_nothing(saved, monkeypatch):
    path, model, tensors = saved
    target = path.parent / checkpoint.checkpoint_name(6)
    monkeypatch.setattr(
        checkpoint, "write_safetensors", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OutputError, match="No space left"):
        save(target, model, tensors)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
