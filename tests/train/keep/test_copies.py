import threading
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from myna.commands import train as command
from myna.errors import OutputError, UsageError
from myna.model.checkpoint import verify
from myna.run import Run
from myna.train.keep import copies
from myna.train.keep.copies import Copier


@pytest.fixture
def checkpoint(save_tiny, tmp_path):
    """Makes the checkpoint of a step."""

    def make(step):
        path = tmp_path / "checkpoints" / f"step_{step:08d}"
        save_tiny(path, step)
        return path

    return make


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(copies, "FIRST_WAIT_S", 0.001)


def test_a_copy_is_the_checkpoint(checkpoint, tmp_path):
    copier = Copier(f"file://{tmp_path}/copies", Run(tmp_path), print)
    copier.add(checkpoint(1))
    copier.finish()
    verify(tmp_path / "copies" / "checkpoints" / "step_00000001")


class Flaky:
    """A store whose first so many uploads fail, the last of them half-way."""

    def __init__(self, store, failures):
        self.store, self.failures, self.sent = store, failures, []

    def put_file(self, source, target):
        if self.failures:
            self.failures -= 1
            self.store.pipe_file(target, b"half")
            raise ConnectionResetError("the store went away\nand more")
        self.sent.append(target.rpartition("/")[2])
        self.store.put_file(source, target)

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_a_store_that_fails_is_asked_again_and_the_manifest_goes_last(checkpoint, tmp_path, quick):
    copier = Copier(f"file://{tmp_path}/copies", Run(tmp_path), print)
    copier.store = Flaky(copier.store, copies.TRIES - 1)
    copier.add(checkpoint(1))
    copier.finish()
    verify(tmp_path / "copies" / "checkpoints" / "step_00000001")
    assert copier.store.sent[-1] == "manifest.json"


def test_a_store_that_is_gone_is_told_and_is_an_error_at_the_end(checkpoint, tmp_path, quick):
    said = []
    copier = Copier(f"file://{tmp_path}/copies", Run(tmp_path), said.append)
    copier.store = Flaky(copier.store, 99)
    path = checkpoint(1)
    copier.add(path)
    with pytest.raises(
        OutputError,
        match=r"cannot copy step_00000001 .*5 tries.*: the store went away; .* itself is whole",
    ):
        copier.finish()
    assert len(said) == 1
    assert "the store went away" in said[0]
    verify(path)


def test_what_waits_gives_way_to_what_is_newer_and_neither_is_removed(checkpoint, tmp_path):
    copier = Copier(f"file://{tmp_path}/copies", Run(tmp_path), print)
    held, real, started = threading.Event(), copier._send, threading.Event()

    def slow(path):
        started.set()
        assert held.wait(10)
        return real(path)

    copier._send = slow
    first, second, third = (checkpoint(n) for n in (1, 2, 3))
    copier.add(first)
    assert started.wait(10)
    copier.add(second)
    copier.add(third)
    assert [copier.busy(path) for path in (first, second, third)] == [True, False, True]
    held.set()
    copier.finish()
    assert sorted(p.name for p in (tmp_path / "copies" / "checkpoints").iterdir()) == [
        "step_00000001",
        "step_00000003",
    ]


def test_the_small_files_go_along_where_they_have_changed(checkpoint, tmp_path):
    run, sent = Run(tmp_path), []
    copier = Copier(f"file://{tmp_path}/copies", run, print)
    pipe = copier.store.pipe_file

    class Noting:
        def pipe_file(self, path, content):
            sent.append(path.rpartition("/")[2])
            pipe(path, content)

        def __getattr__(self, name):
            return getattr(store, name)

    store, copier.store = copier.store, Noting()
    run.write_recipe({"name": "x"})
    run.append_metrics({"step": 1, "tokens": 1})
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 2, "tok')  # is being written
    assert copier._send(checkpoint(1)) is None
    assert sent == ["recipe.json", "metrics.jsonl"]
    assert (tmp_path / "copies" / "metrics.jsonl").read_text().endswith('"tokens": 1}\n')
    with open(run.metrics_path, "a") as file:
        file.write('ens": 2}\n')
    run.report_path.write_bytes(b"png")
    copier.finish()
    assert sent[2:] == ["metrics.jsonl", "report.png"]
    copy = Run(tmp_path / "copies")
    assert copy.metrics() == run.metrics()
    assert copy.recipe() == {"name": "x"}
    assert copy.report_path.read_bytes() == b"png"


def test_small_files_that_could_not_be_sent_go_with_the_next_checkpoint(checkpoint, tmp_path, quick):
    run, said = Run(tmp_path), []
    run.append_metrics({"step": 1, "tokens": 1})
    copier = Copier(f"file://{tmp_path}/copies", run, said.append)
    put, failures = copier._put_small, [99]

    def flaky(files):
        if failures[0] and run.metrics_path in files:
            failures[0] -= 1
            raise ConnectionResetError("the store went away")
        put(files)

    copier._put_small = flaky
    assert copier._send(checkpoint(1)) is not None
    failures[0] = 0
    copier.add(checkpoint(2))
    copier.finish()
    assert said == []
    assert Run(tmp_path / "copies").metrics() == run.metrics()


class Refusing(MemoryFileSystem):
    """A store in memory that refuses what the test says."""

    protocol = "refusing"
    cachable = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    refused: ClassVar[set[str]] = set()

    def pipe_file(self, path, value, **kwargs):
        if "write" in self.refused:
            raise PermissionError("403 for https://me:hunter2@store/x?signature=hunter2\nand more")
        super().pipe_file(path, value[:5] if "half" in self.refused else value, **kwargs)

    def rm_file(self, path):
        if "remove" in self.refused:
            raise PermissionError("objects are kept for ever")
        super().rm_file(path)


@pytest.fixture
def refusing():
    """The URL of a store, which refuses what is put into the set."""
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    Refusing.refused.clear()
    Refusing.store.clear()
    return "refusing://me:hunter2@host/copies", Refusing.refused, Refusing.store


def copier_threads():
    return [thread for thread in threading.enumerate() if thread.name == "checkpoint copier"]


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        ("write", "cannot write there (PermissionError: 403 for https://store/x)"),
        ("half", "cannot write there (OSError: 5 of "),
    ],
)
def test_a_place_that_cannot_be_written_is_told_at_the_start(refusing, refuses, says, tmp_path):
    url, refused, stored = refusing
    refused.add(refuses)
    before = copier_threads()
    with pytest.raises(OutputError) as told:
        Copier(url, Run(tmp_path), print)
    message = str(told.value)
    assert says in message
    assert "hunter2" not in message
    assert "\n" not in message
    assert message.endswith(
        "; see that the place exists and that you may write to it, or leave --copy-to out"
    )
    assert copier_threads() == before
    assert stored == {}


def test_a_store_that_forbids_removing_will_do(refusing, checkpoint, tmp_path):
    url, refused, stored = refusing
    refused.add("remove")
    said = []
    copier = Copier(url, Run(tmp_path), said.append)
    copier.add(checkpoint(1))
    copier.finish()
    probes = [name for name in stored if "myna-probe" in name]
    assert len(probes) == len(said) == 1
    assert "lets nothing be removed (PermissionError: objects are kept for ever)" in said[0]
    assert probes[0].rpartition("/")[2] in said[0]
    assert any(name.endswith("step_00000001/manifest.json") for name in stored)


def everything(folder):
    return sorted(folder.rglob("*"))


def test_the_probe_leaves_nothing_behind(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    before = everything(tmp_path)
    for name in ("there", "new", "new/and/deep", "there/new"):
        Copier(f"file://{tmp_path}/{name}", Run(tmp_path), print).finish()
        assert everything(tmp_path) == before
    with pytest.raises(OutputError, match="cannot write there"):
        Copier(f"file://{tmp_path}/file/copies", Run(tmp_path), print)
    assert everything(tmp_path) == before


def test_a_run_that_cannot_copy_does_not_begin(small_run, tmp_path):
    (tmp_path / "file").write_text("")
    args = [*small_run, "--steps", "2", "--out", str(tmp_path / "run")]
    before = copier_threads()
    with pytest.raises(OutputError, match=r"--copy-to file://.*: cannot write there"):
        command.main([*args, "--copy-to", f"file://{tmp_path}/file/copies"])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert copier_threads() == before


def test_an_empty_url_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--copy-to is empty"):
        Copier("", Run(tmp_path), print)


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "s4://user:hunter2@bucket/x"])
def test_an_unknown_kind_of_url_is_refused(url, tmp_path):
    with pytest.raises(UsageError, match="give a URL that fsspec knows") as refused:
        Copier(url, Run(tmp_path), print)
    assert "hunter2" not in str(refused.value)


def test_a_run_copies_its_checkpoints_and_a_finished_one_sends_what_is_missing(train, tmp_path, capsys):
    args = (tmp_path / "run", 2, "--checkpoint-every", 1)
    train(*args)
    train(*args, "--copy-to", f"file://{tmp_path}/copies")
    assert "Nothing is left to train" in capsys.readouterr().out
    verify(tmp_path / "copies" / "checkpoints" / "step_00000002")


@pytest.mark.parametrize("url", ["~nosuchuser/x", "file://~nosuchuser/x"])
def test_the_home_of_nobody_is_refused(url, tmp_path, monkeypatch):
    """fsspec takes each name that begins with ~ for one below the folder we are in: its parent is longer."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, OutputError), match="nosuchuser"):
        Copier(url, Run(tmp_path), print)
    assert list(tmp_path.iterdir()) == []
