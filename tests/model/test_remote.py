import shutil

import pytest

from myna.errors import CheckpointError, DownloadError, ModelError
from myna.model.checkpoint import MANIFEST, TRAIN_TENSORS, verify
from myna.model.open import find_model, open_model
from myna.model.remote import fetch_all, fetch_newest
from myna.store import remote
from myna.store.here import here
from myna.store.remote import Remote


@pytest.fixture
def run(save_tiny, tmp_path, monkeypatch):
    """A run of two checkpoints on another store, which is a folder: the folder, and its URL."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    folder = tmp_path / "there" / "run"
    for step in (1, 2):
        save_tiny(folder / "checkpoints" / f"step_{step:08d}", step)
    (folder / "recipe.json").write_text("{}")
    return folder, f"file://{folder}"


@pytest.fixture
def fetched(monkeypatch):
    """The names of the files that are fetched."""
    names, fetch = [], Remote.fetch

    def noting(self, wanted, into):
        names.extend(f"{self.name}/{one.name}" for one in wanted)
        fetch(self, wanted, into)

    monkeypatch.setattr(Remote, "fetch", noting)
    return names


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_of_a_run_the_newest_model_comes_without_its_training_state(run, fetched):
    folder, url = run
    opened = open_model(url)
    assert (opened.name, opened.path.name) == (url, "step_00000002")
    same = open_model(folder).model.state_dict()
    assert all((tensor == same[name]).all() for name, tensor in opened.model.state_dict().items())
    assert {name.partition("/")[0] for name in fetched} == {"step_00000002"}
    assert f"step_00000002/{TRAIN_TENSORS}" not in fetched
    fetched.clear()
    assert find_model(url) == find_model(opened.path) == opened.path
    assert fetched == []


def test_a_newer_checkpoint_is_noticed(run, save_tiny):
    folder, url = run
    assert find_model(url).name == "step_00000002"
    save_tiny(folder / "checkpoints" / "step_00000003", 3)
    assert find_model(url).name == "step_00000003"


def test_a_checkpoint_that_was_made_anew_is_noticed(run, save_tiny):
    folder, url = run
    path = folder / "checkpoints" / "step_00000002"
    before = find_model(url)
    shutil.rmtree(path)
    save_tiny(path, 7)
    assert find_model(url) == before
    assert (before / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()


def test_a_half_copied_checkpoint_gives_way_to_the_one_before(run):
    folder, url = run
    (folder / "checkpoints" / "step_00000002" / MANIFEST).unlink()
    with pytest.warns(UserWarning, match=r"step_00000002 has no manifest\.json: its copy is not finished"):
        assert find_model(url).name == "step_00000001"


def test_a_flipped_bit_is_refused_by_name(run):
    folder, url = run
    flip(folder / "checkpoints" / "step_00000002" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"step_00000002/model\.safetensors is damaged: its SHA-256"):
        find_model(f"{url}/checkpoints/step_00000002")
    with pytest.warns(UserWarning, match=r"step_00000002/model\.safetensors is damaged"):
        assert find_model(url).name == "step_00000001"
    flip(folder / "checkpoints" / "step_00000001" / MANIFEST)
    with (
        pytest.warns(UserWarning, match="looking at the one before step"),
        pytest.raises(CheckpointError, match=r"the run file://.* has no sound checkpoint"),
    ):
        find_model(url)


def test_a_flipped_bit_in_the_cache_is_mended(run):
    path = find_model(run[1])
    flip(path / "model.safetensors")
    assert find_model(run[1]) == path
    assert open_model(run[1]).path == path


def test_a_store_that_fails_is_no_sign_of_damage(run, monkeypatch):
    def fails(*_, **__):
        raise ConnectionResetError("gone")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.get_file", fails)
    with pytest.raises(DownloadError, match=r"cannot read .*step_00000002/.*\(ConnectionResetError: gone\)"):
        find_model(run[1])


def test_for_training_all_of_it_comes(run, tmp_path):
    path = fetch_newest(Remote(run[1]), tmp_path / "out")
    verify(path)
    assert path == tmp_path / "out" / "step_00000002"


def test_all_checkpoints_where_all_are_asked_for(run):
    path = here(run[1], fetch_all)
    assert sorted(one.name for one in (path / "checkpoints").iterdir()) == ["step_00000001", "step_00000002"]


def test_a_hugging_face_folder(run, fetched):
    folder, url = run
    model = folder / "checkpoints" / "step_00000002"
    for name in (MANIFEST, "train_state.json", TRAIN_TENSORS):
        (model / name).unlink()
    opened = open_model(f"{url}/checkpoints/step_00000002")
    assert opened.tokenizer.n_vocab == 257
    assert "step_00000002/generation_config.json" not in fetched
    fetched.clear()
    (model / "tokenizer.json").touch()
    find_model(f"{url}/checkpoints/step_00000002")
    assert fetched == ["step_00000002/tokenizer.json"]


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(DownloadError, match="there is nothing at file://"):
        find_model(f"file://{tmp_path}/x")
    (tmp_path / "x" / "notes.txt").touch()
    with pytest.raises(ModelError, match=r"file://.*/x is no model"):
        find_model(f"file://{tmp_path}/x")
