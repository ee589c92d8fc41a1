import subprocess
import sys

import fsspec
import pytest

from myna.errors import DataError, DownloadError, ModelError
from myna.run import Run
from myna.store import remote
from myna.store.here import address_of, fetch_any, here, results_beside
from myna.store.records import fetch_records, fetch_records_if_any


@pytest.fixture
def url(tmp_path):
    """An empty place in memory."""
    store = fsspec.filesystem("memory")
    yield f"memory://{tmp_path.name}/x"
    if store.exists(f"memory://{tmp_path.name}"):
        store.rm(f"memory://{tmp_path.name}", recursive=True)


def put(url, **files):
    fsspec.filesystem("memory").pipe(
        {f"{url}/{name.replace('_', '.')}": data for name, data in files.items()}
    )


def test_a_path_is_itself(tmp_path):
    assert here(str(tmp_path), fetch_any) == tmp_path
    assert here("gpt2", fetch_any).name == "gpt2"
    assert address_of(tmp_path) == str(tmp_path)
    assert results_beside(tmp_path, "report.png") == tmp_path / "report.png"
    with pytest.raises(ModelError, match="NUL"):
        here("a\0b", fetch_any, ModelError)


def test_a_folder_is_fetched_once_and_what_changed_again(url, monkeypatch):
    put(url, a_txt=b"a", b_txt=b"b")
    fetched, fetch = [], remote.Remote.fetch

    def noting(self, wanted, into):
        fetched.extend(one.name for one in wanted)
        fetch(self, wanted, into)

    monkeypatch.setattr(remote.Remote, "fetch", noting)
    path = here(url, fetch_any)
    assert (path.name, (path / "a.txt").read_bytes()) == ("x", b"a")
    assert address_of(path / "a.txt") == f"{url}/a.txt"
    put(url, b_txt=b"B")
    assert here(f"{url}/", fetch_any) == path
    assert (path / "b.txt").read_bytes() == b"B"
    assert fetched == ["a.txt", "b.txt", "b.txt"]


def test_one_file_is_fetched(url):
    put(url, a_txt=b"a")
    assert here(f"{url}/a.txt", fetch_any).read_bytes() == b"a"
    assert address_of(here(f"{url}/a.txt", fetch_any)) == f"{url}/a.txt"


@pytest.mark.parametrize("fetch", [fetch_any, fetch_records, fetch_records_if_any])
def test_nothing_there_is_told(url, fetch):
    with pytest.raises(DownloadError, match=r"there is nothing at memory://.*; check the address"):
        here(url, fetch)


def test_the_records_of_a_run_follow_it(url):
    put(url, recipe_json=b"{}", samples_jsonl=b"{}\n", metrics_jsonl=b'{"step": 1}\n', report_png=b"png")
    path = here(url, fetch_records)
    assert sorted(file.name for file in path.iterdir()) == ["metrics.jsonl", "recipe.json", "samples.jsonl"]
    put(url, metrics_jsonl=b'{"step": 1}\n{"step": 2}\n')
    fsspec.filesystem("memory").rm(f"{url}/samples.jsonl")
    assert [record["step"] for record in Run(here(url, fetch_records)).metrics()] == [1, 2]
    assert not (path / "samples.jsonl").exists()


def test_what_is_no_run_has_no_records(url):
    put(url, config_json=b"{}")
    assert list(here(url, fetch_records_if_any).iterdir()) == []
    with pytest.raises(DataError, match=r"memory://.* is not a run: it has no recipe\.json"):
        here(url, fetch_records)


FETCH_AND_COUNT = """
import sys
from myna.store import remote
from myna.store.here import fetch_any, here

fetched, fetch = [], remote.Remote.fetch
remote.Remote.fetch = lambda self, wanted, into: (fetched.extend(wanted), fetch(self, wanted, into))
print("ready", flush=True)
sys.stdin.readline()
here(sys.argv[1], fetch_any)
print(len(fetched))
"""


def test_two_processes_do_not_fetch_twice(tmp_path):
    (tmp_path / "x").mkdir()
    for name in "abc":
        (tmp_path / "x" / name).write_text(name)
    call, pipe = [sys.executable, "-c", FETCH_AND_COUNT, f"file://{tmp_path}/x"], subprocess.PIPE
    both = [subprocess.Popen(call, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0] for process in both) == ["0\n", "3\n"]
