import fsspec
import pytest

from myna.errors import DownloadError, UsageError
from myna.files import sha256_bytes
from myna.store import remote as module
from myna.store.remote import DamagedError, Remote, Wanted


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder in memory with two files, one of them below: its URL and the store."""
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.001)
    url, store = f"memory://{tmp_path.name}/a folder", fsspec.filesystem("memory")
    store.pipe({f"{url}/one.txt": b"1", f"{url}/below/two.txt": b"22"})
    yield url, store
    store.rm(f"memory://{tmp_path.name}", recursive=True)


def test_what_lies_there(place):
    url, store = place
    remote = Remote(url)
    found = remote.list()
    assert {name: (entry.n_bytes, entry.is_folder) for name, entry in found.items()} == {
        "one.txt": (1, False),
        "below": (0, True),
    }
    assert list(remote.all_files()) == ["below/two.txt", "one.txt"]
    assert remote.read("below/two.txt") == b"22"
    assert remote.read("three.txt") is None
    assert remote.below("nothing").list() == {}
    assert remote.name == "a folder"
    stamp = found["one.txt"].stamp
    assert Remote(url).list()["one.txt"].stamp == stamp
    store.pipe(f"{url}/one.txt", b"2")
    assert remote.list()["one.txt"].stamp != stamp


def test_a_file_comes_whole_and_verified(place, tmp_path):
    remote = Remote(place[0])
    remote.fetch([Wanted("one.txt", 1, sha256_bytes(b"1")), Wanted("below/two.txt")], tmp_path)
    assert (tmp_path / "one.txt").read_bytes() == b"1"
    assert (tmp_path / "below" / "two.txt").read_bytes() == b"22"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below", "one.txt"]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted("one.txt", 2), "one.txt is damaged: 1 of 2 bytes came"),
        (Wanted("one.txt", 1, sha256_bytes(b"2")), "one.txt is damaged: its SHA-256 is not the one stated"),
    ],
)
def test_another_file_than_stated_is_refused_by_name_and_leaves_nothing(place, tmp_path, wanted, says):
    with pytest.raises(DamagedError, match=says):
        Remote(place[0]).fetch([wanted], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(place, tmp_path, name):
    with pytest.raises(DownloadError, match="would lie outside"):
        Remote(place[0]).fetch([Wanted(name)], tmp_path)


class Flaky:
    """A store whose first so many downloads fail, after half a file."""

    def __init__(self, store, failures):
        self.store, self.failures, self.asked = store, failures, 0

    def get_file(self, source, target, **options):
        self.asked += 1
        if self.asked <= self.failures:
            with open(target, "wb") as file:
                file.write(b"half")
            raise ConnectionResetError("https://me:hunter2@store went away\nand more")
        self.store.get_file(source, target, **options)

    def __getattr__(self, name):
        return getattr(self.store, name)


@pytest.mark.parametrize("failures", [2, 3])
def test_a_store_that_fails_is_asked_three_times(place, tmp_path, failures):
    remote = Remote(place[0])
    remote.store = Flaky(remote.store, failures)
    if failures == 2:
        remote.fetch([Wanted("one.txt", 1)], tmp_path)
        return
    with pytest.raises(DownloadError) as told:
        remote.fetch([Wanted("one.txt", 1)], tmp_path)
    message = str(told.value)
    assert message.startswith(
        f"cannot read {place[0]}/one.txt (ConnectionResetError: https://store went away)"
    )
    assert "\n" not in message
    assert remote.store.asked == 3
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_asked_for_once(place, tmp_path):
    remote = Remote(place[0])
    remote.store = Flaky(remote.store, 0)
    with pytest.raises(DownloadError, match=r"there is nothing at memory://.*/none; check the address"):
        remote.fetch([Wanted("none")], tmp_path)
    assert remote.store.asked == 1


def test_an_unknown_kind_of_url_is_refused_without_its_secrets():
    with pytest.raises(UsageError, match="give a URL that fsspec knows") as refused:
        Remote("s4://user:hunter2@bucket/x")
    assert "hunter2" not in str(refused.value)
