"""A run's checkpoints: what is loaded, from files of today and of before, and what is refused."""

import json

import pytest
import torch

from myna import GPT
from myna.errors import CheckpointError
from myna.files import write_safetensors
from myna.model import checkpoint
from myna.model.checkpoint import TRAIN_STATE, TRAIN_TENSORS, load_train_files
from myna.train.keep.checkpoints import load_checkpoint
from myna.train.optimizers import adamw


@pytest.fixture
def half(train, tmp_path):
    """A run of four steps with averaged weights as it was at step 2, and the folder of that step."""
    run = train(tmp_path / "run", 4, "--checkpoint-every", 2, "--average-decay", 0.9)
    (run.checkpoints / "step_00000004").rename(tmp_path / "step_00000004")
    return run, run.checkpoints / "step_00000002"


def rewrite(path, tensors, state):
    """Other training files under a manifest that agrees."""
    write_safetensors(path / "new", tensors)
    (path / "new").replace(path / TRAIN_TENSORS)  # the tensors may be a view of the file itself
    (path / TRAIN_STATE).write_text(json.dumps(state))
    (path / "manifest.json").write_bytes(checkpoint._manifest(path, {}))


def loaded(path):
    network = GPT.from_pretrained(path)
    return load_checkpoint(path, network, adamw.build(network, 1e-3, adamw.AdamWOptions()), None)


def test_what_an_older_version_left_goes_on_bit_for_bit(half, train, hashes, tmp_path, capsys):
    """It had no format number; tensors in the layout of the model's file; Adam's steps in the JSON alone."""
    run, path = half
    whole = train(tmp_path / "whole", 4, "--average-decay", 0.9)
    tensors, state = load_train_files(path)
    network, before = GPT.from_pretrained(path), {}
    kinds = {key.partition(".")[0] for key in tensors} - {"step"}
    assert kinds == {"exp_avg", "exp_avg_sq", "weights"}
    for kind in kinds:
        arrays = {name: tensors[f"{kind}.{name}"] for name, _ in network.named_parameters()}
        named = {name: network.padded(name, torch.from_numpy(array)) for name, array in arrays.items()}
        before |= {f"{kind}.{name}": array for name, array in network.layout.to_file(network, named).items()}
    assert "exp_avg.transformer.wte.weight" in before
    rewrite(path, before, {k: v for k, v in state.items() if k not in ("format", "skipped_in_row")})
    train(run.path, 4, "--checkpoint-every", 2, "--average-decay", 0.9)
    assert "resuming after step 2" in capsys.readouterr().out
    assert hashes(run.path, 4) == hashes(whole.path, 4)
    assert load_train_files(run.checkpoints / "step_00000004")[1]["format"] == 2


def test_files_that_do_not_belong_together_are_refused(half):
    _, path = half
    tensors, state = load_train_files(path)
    assert loaded(path).step == 2
    rewrite(path, tensors, state | {"step": 1})
    with pytest.raises(CheckpointError, match=r"train_state.json is of step 1; use another checkpoint"):
        loaded(path)
    rewrite(path, {k: v for k, v in tensors.items() if not k.startswith("exp_avg")}, state)
    with pytest.raises(CheckpointError, match=r"train_state.safetensors lacks the optimizer's exp_avg of"):
        loaded(path)
    rewrite(path, {}, state)
    with pytest.raises(CheckpointError, match=r"lacks weights.wte.weight; use another checkpoint"):
        loaded(path)


def test_a_network_of_another_shape_is_refused(half, save_tiny, tmp_path):
    _, path = half
    network = save_tiny(tmp_path / "tiny")
    optimizer = adamw.build(network, 1e-3, adamw.AdamWOptions())
    with pytest.raises(CheckpointError, match=r"wte\.weight has another shape than this recipe's network"):
        load_checkpoint(path, network, optimizer, None)


def test_what_was_loaded_does_not_hang_on_the_file_any_more(half):
    """Retention may remove it, and a disk may lose it, while the run goes on."""
    _, path = half
    network = GPT.from_pretrained(path)
    optimizer = adamw.build(network, 1e-3, adamw.AdamWOptions())
    load_checkpoint(path, network, optimizer, None)
    with open(path / TRAIN_TENSORS, "r+b") as file:
        file.write(b"\xff" * (path / TRAIN_TENSORS).stat().st_size)
    assert all(tensor.isfinite().all() for tensor in optimizer.named_state().values())
