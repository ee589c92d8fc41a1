import json
import shutil

import numpy as np
import pytest

from myna.data.remote import fetch_data, fetch_validation
from myna.data.shards import open_dataset
from myna.errors import DataError, DownloadError
from myna.store import remote
from myna.store.here import address_of, here
from myna.store.remote import Remote


@pytest.fixture
def there(small_dataset, tmp_path, monkeypatch):
    """The small dataset on another store, which is a folder."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    shutil.copytree(small_dataset, tmp_path / "there" / "small")
    return tmp_path / "there" / "small"


def test_a_dataset_is_fetched_once_and_verified(there, small_dataset, monkeypatch):
    path = here(f"file://{there}", fetch_data)
    assert open_dataset(path).identity == open_dataset(small_dataset).identity
    assert (path.name, address_of(path)) == ("small", f"file://{there}")

    def fails(self, wanted, into):
        assert not wanted

    monkeypatch.setattr(Remote, "fetch", fails)
    assert here(f"file://{there}", fetch_data) == path


def test_of_the_validation_split_alone_the_rest_stays_there_until_it_is_asked_for(there, conversations):
    for place in (there, conversations):
        path = here(f"file://{place}", fetch_validation)
        assert not any(one.name.startswith("train") for one in path.iterdir())
        dataset = open_dataset(path, splits=("val",))
        assert dataset.val.read(0, dataset.val.n_tokens).size == dataset.val.n_tokens
        with pytest.raises(DataError, match="train_000000"):
            open_dataset(path)
        assert here(f"file://{place}", fetch_data) == path
        open_dataset(path)


def test_conversations_come_with_their_masks(conversations):
    path = here(f"file://{conversations}", fetch_data)
    assert open_dataset(path).identity == open_dataset(conversations).identity


def test_a_flipped_bit_is_refused_by_name(there):
    shard = there / "train_000000.npy"
    data = bytearray(shard.read_bytes())
    data[500] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"file://.*/small/train_000000\.npy is damaged: its SHA-256"):
        here(f"file://{there}", fetch_data)


def test_a_flipped_bit_in_the_cache_is_mended(there):
    path = here(f"file://{there}", fetch_data)
    shard = path / "val_000000.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    open_dataset(here(f"file://{there}", fetch_data))


def test_a_dataset_that_was_made_anew_has_another_folder(there, conversations):
    before = here(f"file://{there}", fetch_data)
    shutil.rmtree(there)
    shutil.copytree(conversations, there)
    after = here(f"file://{there}", fetch_data)
    assert before != after
    assert open_dataset(before).identity != open_dataset(after).identity


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Expecting property name"),
        ("[]", r"it is \[\], not a JSON object"),
        ('{"tokenizer": "x", "train": {"shards": [1]}}', r"its field train\.shards is 1, not a JSON object"),
    ],
)
def test_a_damaged_dataset_json_is_refused(there, text, says):
    (there / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=rf"small/dataset\.json is damaged \({says}.*\); copy"):
        here(f"file://{there}", fetch_data)


def test_a_missing_shard_is_named(there):
    (there / "val_000000.npy").unlink()
    with pytest.raises(DownloadError, match=r"there is nothing at file://.*/val_000000\.npy"):
        here(f"file://{there}", fetch_data)


def test_a_name_with_folders_stays_in_its_own(there):
    place = there / "dataset.json"
    info = json.loads(place.read_text())
    info["val"]["shards"][0]["file"] = "../val_000000.npy"
    place.write_text(json.dumps(info))
    path = here(f"file://{there}", fetch_data)
    assert (path / "val_000000.npy").is_file()


def test_shards_of_another_project_come_as_they_are(tmp_path):
    (tmp_path / "edu").mkdir()
    np.save(tmp_path / "edu" / "edufineweb_train_000001.npy", np.arange(100, dtype=np.uint16))
    path = here(f"file://{tmp_path}/edu", fetch_data)
    assert np.load(path / "edufineweb_train_000001.npy").tolist() == list(range(100))
