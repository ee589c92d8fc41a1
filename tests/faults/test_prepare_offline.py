"""A connection that dawdles or comes back: Ctrl-C is answered at once, and a flaky server is asked again."""

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from myna.cli import main
from myna.data.shards import open_dataset
from myna.data.sources import fetch

TEXTS = "".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(100)).encode()


class Dawdler(http.server.BaseHTTPRequestHandler):
    """/slow.jsonl never ends; /flaky.jsonl fails three times first."""

    failures = 3

    def do_GET(self) -> None:
        if self.path == "/flaky.jsonl" and Dawdler.failures:
            Dawdler.failures -= 1
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXTS) * (1000 if self.path == "/slow.jsonl" else 1)))
        self.end_headers()
        self.wfile.write(TEXTS)
        if self.path == "/slow.jsonl":
            time.sleep(20)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dawdler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server_that_comes_back(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RETRY_S", 0.001)
    arguments = ["prepare", f"{address}/flaky.jsonl", "--out", str(tmp_path / "data"), "--tokenizer", "bytes"]
    assert main(arguments) == 0
    assert Dawdler.failures == 0
    made = open_dataset(tmp_path / "data")
    assert made.train.n_documents + made.val.n_documents == 100


def test_ctrl_c_does_not_wait_for_a_download(address: str, tmp_path: Path) -> None:
    out = tmp_path / "data"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "myna",
            "prepare",
            f"{address}/slow.jsonl",
            "--out",
            str(out),
            "--tokenizer",
            "bytes",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "data.partial" / "fetched").exists():
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 75, errors
    assert "run the same command again" in errors
    assert time.monotonic() - began < 10
    assert not out.exists()
