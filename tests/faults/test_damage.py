"""Files that are not what was written: flipped, cut, or a pickle put in their place."""

import pickle
import random
import shutil
import warnings
from pathlib import Path

import pytest

from myna.cli import main
from myna.errors import CheckpointError
from myna.model import checkpoint
from myna.model.checkpoint import newest_sound, verify
from myna.run import Run


@pytest.fixture
def checkpoints(save_tiny, tmp_path):
    """Two, of steps 1 and 2."""
    for step in (1, 2):
        save_tiny(tmp_path / "checkpoints" / f"step_{step:08d}", step)
    return tmp_path / "checkpoints"


def places(path, count, seed):
    """Files with an offset each: half of them anywhere by size, half by file, so that small files are met."""
    chance = random.Random(seed)
    files = sorted(path.iterdir())
    sizes = [file.stat().st_size for file in files]
    for number in range(count):
        file = chance.choices(files, sizes)[0] if number % 2 else chance.choice(files)
        yield file, chance.randrange(file.stat().st_size), chance


def test_a_thousand_flipped_bytes_are_refused(checkpoints):
    path = checkpoints / "step_00000002"
    refused, met = 0, set()
    for file, offset, chance in places(path, 1000, seed=1):
        whole = file.read_bytes()
        other = (whole[offset] + chance.randrange(1, 256)) % 256
        file.write_bytes(whole[:offset] + bytes([other]) + whole[offset + 1 :])
        try:
            verify(path)
        except CheckpointError:
            refused += 1
            met.add(file.name)
        file.write_bytes(whole)
    verify(path)
    assert refused == 1000
    assert met == {file.name for file in path.iterdir()}


def test_a_hundred_truncations_are_refused_and_the_one_before_is_used(checkpoints):
    path = checkpoints / "step_00000002"
    used = []
    for file, offset, _ in places(path, 100, seed=2):
        whole = file.read_bytes()
        file.write_bytes(whole[:offset])
        used.append(newest_sound(checkpoints, lambda path, error: None))
        file.write_bytes(whole)
    assert used == [checkpoints / "step_00000001"] * 100
    assert newest_sound(checkpoints, lambda path, error: None) == path


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory):
    """A run of two steps that is done."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *small_run, "--steps", "2", "--out", str(out)]) == 0
    return out


NEWEST = "checkpoints/step_00000002"
RUN_FILES = [
    "recipe.json",
    *(f"{NEWEST}/{name}" for name in (
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        "train_state.safetensors", "train_state.json", "manifest.json",
    )),
]  # fmt: skip


def in_place(folder, name, canary, call):
    """Runs a command with a pickle in place of a file; its exit code."""
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged checkpoint is also warned of
            return main(call)
    finally:
        assert not canary.exists(), name
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_pickle_in_a_run_is_refused_and_never_executed(finished, small_run, tmp_path, capsys, name):
    canary = tmp_path / "executed"
    if name == "recipe.json":
        call = ["train", *small_run, "--steps", "2", "--out", str(finished)]
    else:
        call = ["sample", str(finished), "--prompt", "1", "--max-tokens", "1"]
    assert in_place(finished, name, canary, call) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", RUN_FILES[1:-1])
def test_not_even_under_a_manifest_that_agrees(finished, small_run, tmp_path, capsys, name):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    canary = tmp_path / "executed"
    (run / name).write_bytes(pickle.dumps(Canary(canary)))
    (run / NEWEST / "manifest.json").write_bytes(checkpoint._manifest(run / NEWEST, {}))
    verify(run / NEWEST)
    code = main(["train", *small_run, "--steps", "2", "--out", str(run)])
    # A resume reads weights and training state; what is only for others it leaves alone.
    read = ("/config.json", "model.safetensors", "train_state.safetensors", "train_state.json")
    assert code == (2 if name.endswith(read) else 0)
    assert not canary.exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dataset.json", "tokenizer.json", "train_000000.npy", "val_000000.npy"])
def test_a_pickle_in_the_data_is_refused_and_never_executed(
    small_run_with, small_dataset, tmp_path, capsys, name
):
    data = tmp_path / "data"
    shutil.copytree(small_dataset, data)
    call = ["train", *small_run_with("--steps", 1, "--out", tmp_path / "run", "--data", data)]
    if name == "tokenizer.json":
        call += ["--tokenizer", "from-data"]
    assert in_place(data, name, tmp_path / "executed", call) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pickle_in_the_metrics_is_skipped(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    with open(run / "metrics.jsonl", "ab") as file:
        pickle.dump(Canary(tmp_path / "executed"), file)
    assert len(Run(run).metrics()) == len(Run(finished).metrics())
    assert not (tmp_path / "executed").exists()
