import random
import shutil

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import CheckpointError, ModelError
from myna.model import checkpoint
from myna.model.open import open_model

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, vocab_size=257)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = GPT(CONFIG)
    moments = {
        kind: {name: torch.randn_like(p) for name, p in model.named_parameters()}
        for kind in ("exp_avg", "exp_avg_sq")
    }
    for tensors in moments.values():
        tensors["wte.weight"][257:] = 0  # padding has no gradient, so no moments
    path = tmp_path / "run" / "checkpoints" / checkpoint.checkpoint_name(5)
    checkpoint.save_checkpoint(
        path, CONFIG, model.state_dict(), Tokenizer.bytes(), moments, {"samples": 40, "learning_rate": 0.1}
    )
    return path, model, moments


def test_everything_comes_back_bit_for_bit(saved):
    path, model, moments = saved
    checkpoint.verify(path)
    tensors, state = checkpoint.load_train_state(path, model)
    assert state == {"samples": 40, "learning_rate": 0.1}
    for kind, by_name in moments.items():
        for name, tensor in by_name.items():
            assert torch.equal(tensors[kind][name], tensor), (kind, name)
    opened = open_model(path)
    assert all(torch.equal(a, b) for a, b in zip(opened.model.parameters(), model.parameters(), strict=True))
    assert opened.tokenizer.n_vocab == 257


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
    path, model, moments = saved
    before = (path / "manifest.json").stat().st_mtime_ns
    checkpoint.save_checkpoint(path, CONFIG, model.state_dict(), Tokenizer.bytes(), moments, {"samples": 41})
    assert (path / "manifest.json").stat().st_mtime_ns == before
    (path / "config.json").write_text("{}")
    checkpoint.save_checkpoint(path, CONFIG, model.state_dict(), Tokenizer.bytes(), moments, {"samples": 41})
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
    path, model, moments = saved
    target = path.parent / checkpoint.checkpoint_name(6)
    monkeypatch.setattr(
        checkpoint, "write_safetensors", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(Exception, match="No space left"):
        checkpoint.save_checkpoint(target, CONFIG, model.state_dict(), Tokenizer.bytes(), moments, {})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
