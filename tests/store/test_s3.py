"""A server that speaks S3, on loopback: a run's copy, and what is read from it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import fsspec
import pytest

from myna.cli import main
from myna.errors import DownloadError, OutputError
from myna.model.checkpoint import verify
from myna.model.open import find_model
from myna.run import Run
from myna.store import remote
from myna.store.here import here
from myna.store.records import fetch_records
from myna.train.keep.copies import Copier

pytest.importorskip("moto.server", reason="moto[server] is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own


@pytest.fixture(scope="module")
def server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield address
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """The name of a bucket of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    store = fsspec.filesystem("s3")
    name = tmp_path.name.replace("_", "-")[:50]
    store.mkdir(name)
    yield name
    store.clear_instance_cache()


def test_a_run_goes_there_and_comes_back(bucket, save_tiny, tmp_path):
    with pytest.raises(OutputError, match="cannot write there"):
        Copier("s3://no-such-bucket/runs", Run(tmp_path), print)
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    assert not store.exists("no-such-bucket")
    run, url = Run(tmp_path / "run"), f"s3://{bucket}/runs/a"
    save_tiny(run.checkpoints / "step_00000001", 1)
    run.write_recipe({})
    run.append_metrics({"step": 1, "tokens": 1})
    copier = Copier(url, run, print)
    store.invalidate_cache()
    assert store.ls(bucket) == []
    copier.add(run.checkpoints / "step_00000001")
    copier.finish()
    store.get(f"{url}/checkpoints/step_00000001", str(tmp_path / "back"), recursive=True)
    verify(tmp_path / "back")
    assert Run(here(url, fetch_records)).metrics() == run.metrics()
    found = find_model(url)
    assert (found / "config.json").read_bytes() == (tmp_path / "back" / "config.json").read_bytes()
    store.pipe(f"{url}/metrics.jsonl", b'{"step": 5}\n')
    assert [record["step"] for record in Run(here(url, fetch_records)).metrics()] == [5]


@pytest.mark.parametrize("url", ["s3://no-such-bucket/runs", "s3://{}/nothing"])
def test_a_bucket_or_folder_that_is_not_there_is_a_line(bucket, url, capsys):
    with pytest.raises(DownloadError):
        find_model(url.format(bucket))
    assert main(["report", url.format(bucket)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("myna report: ")
    assert said.count("\n") == 1


def test_the_endpoint_is_a_setting_of_fsspec(bucket, server, small_dataset):
    """As docs/train.md has it: the variables that name a store other than Amazon's."""
    fsspec.filesystem("s3").put(str(small_dataset), f"{bucket}/small", recursive=True)
    fsspec_alone = {"FSSPEC_S3_ENDPOINT_URL": server, "FSSPEC_S3_KEY": "x", "FSSPEC_S3_SECRET": "y"}
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | fsspec_alone
    call = [sys.executable, "-m", "myna", "data", "show", f"s3://{bucket}/small", "--windows", "0"]
    done = subprocess.run(call, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"s3://{bucket}/small" in done.stdout
