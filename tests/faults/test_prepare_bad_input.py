"""Whatever is wrong with the input: one line that says what and where, exit code 2, and nothing left behind."""

import contextlib
import dataclasses
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from myna.cli import main
from myna.data.shards import open_dataset
from myna.data.sources import corpora, cut, fetch

GOOD = "".join(json.dumps({"text": f"Some text, number {n}.\n"}) + "\n" for n in range(50))


def fails(capsys: pytest.CaptureFixture[str], out: Path, *args: str) -> str:
    """Runs `myna prepare`, which must fail cleanly; returns its line."""
    before = sorted(path.name for path in out.parent.iterdir())
    assert main(["prepare", *args, "--out", str(out), "--tokenizer", "bytes"]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("myna prepare: ")
    assert sorted(path.name for path in out.parent.iterdir()) == before
    return lines[0]


def test_corpora_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    assert "did you mean shakespeare?" in fails(capsys, out, "shakespear")
    assert "there is no corpus, file, folder or glob" in fails(capsys, out, str(tmp_path / "absent.txt"))
    assert "there is no corpus" in fails(capsys, out, str(tmp_path / "*.parquet"))
    (tmp_path / "folder").mkdir()
    assert "holds no text (it is empty)" in fails(capsys, out, str(tmp_path / "folder"))
    (tmp_path / "folder" / "x.pdf").write_bytes(b"%PDF\0")
    message = fails(capsys, out, str(tmp_path / "folder"))
    assert "holds no text (left out: 1 .pdf (binary)); name text, .jsonl or .parquet files" in message
    assert "x.pdf is no text (binary)" in fails(capsys, out, str(tmp_path / "folder" / "x.pdf"))
    assert "name a corpus" in fails(capsys, out)


def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text\n" * 10)
    (tmp_path / "file").write_text("")
    assert main(["prepare", str(tmp_path / "a.txt"), "--out", str(tmp_path / "file" / "data")]) == 2
    assert "cannot write to" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path / "a.txt")]) == 2
    assert "--out DIR" in capsys.readouterr().err
    for nameless in (".", "..", "/"):
        assert main(["prepare", str(tmp_path / "a.txt"), "--out", nameless]) == 2
        assert f"--out {nameless} has no name of its own" in capsys.readouterr().err


def test_empty_corpora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    (tmp_path / "a.txt").write_text("")
    assert "no text in it (1 empty documents" in fails(capsys, out, str(tmp_path / "a.txt"))
    (tmp_path / "b.jsonl").write_text('{"text": ""}\n\n{"text": ""}\n')
    assert "no text in it (2 empty documents" in fails(capsys, out, str(tmp_path / "b.jsonl"))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet")
    assert "no text in it (0 empty documents" in fails(capsys, out, str(tmp_path / "c.parquet"))


def test_empty_documents_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"text": ["one\n", "", None, "two\n"]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(GOOD + '{"text": ""}\n')
    assert main(["prepare", str(tmp_path), "--out", str(tmp_path / "data"), "--tokenizer", "bytes"]) == 0
    assert "skipped 3 empty documents" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "data")
    assert dataset.train.n_documents + dataset.val.n_documents == 52


BAD_LINES = {
    b'{"text": "cut': "not JSON",
    b"<html>": "not JSON",
    b'"only a string"': "no text in a field 'text'",
    b'{"texts": "misspelt"}': "no text in a field 'text'",
    b'{"text": 5}': "no text in a field 'text'",
    b'{"text": "caf\xe9"}': "not UTF-8",
    b'{"text": "\\ud800"}': "a lone surrogate",
}


@pytest.mark.parametrize("small_parts", [False, True])
@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_or_counted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: bytes,
    small_parts: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if small_parts:
        monkeypatch.setattr(cut, "PART_BYTES", 300)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + line + b"\n" + GOOD.encode())
    message = fails(capsys, tmp_path / "data", str(path))
    assert f"a.jsonl, line 51: {BAD_LINES[line]}" in message
    assert "--skip-bad" in message
    arguments = ["prepare", str(path), "--out", str(tmp_path / "data"), "--tokenizer", "bytes", "--skip-bad"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "skipped 1 bad document, the first: " in output
    assert "line 51" in output
    dataset = open_dataset(tmp_path / "data")
    assert dataset.train.n_documents + dataset.val.n_documents == 100


def test_text_that_is_not_utf8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.txt"
    path.write_bytes(b"first line\nsecond caf\xe9 line\n" * 3)
    assert "a.txt is not UTF-8 at byte 21 (line 2)" in fails(capsys, tmp_path / "data", str(path))
    (tmp_path / "in" / "b.txt").write_text("good\n")
    arguments = ["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "data"), "--tokenizer", "bytes"]
    assert main([*arguments, "--skip-bad", "--val-fraction", "0"]) == 0
    assert open_dataset(tmp_path / "data").train.n_documents == 1
    monkeypatch.setattr(cut, "PART_BYTES", 20)
    message = fails(capsys, tmp_path / "other", str(path), "--skip-bad")
    assert "is not UTF-8 at byte" in message
    assert "used whole" in message


def test_parquet_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offsets = pa.py_buffer(np.array([0, 3, 7, 9], dtype=np.int32).tobytes())
    texts = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"onecaf\xe9ok")])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert "a.parquet, row 1: not UTF-8" in fails(capsys, tmp_path / "data", str(tmp_path / "a.parquet"))
    arguments = [
        "prepare",
        str(tmp_path / "a.parquet"),
        "--out",
        str(tmp_path / "data"),
        "--tokenizer",
        "bytes",
    ]
    assert main([*arguments, "--skip-bad", "--val-fraction", "0"]) == 0
    assert "skipped 1 bad document" in capsys.readouterr().out


def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "good.parquet").unlink()
    compressed = {"gz": gzip.compress(GOOD.encode()), "zst": zstandard.compress(GOOD.encode())}
    for name, content, expected in (
        ("cut.parquet", data[: len(data) // 2], "cut short or damaged"),
        ("page.parquet", b"<!DOCTYPE html><html>Log in</html>", "it begins with '<!DOCTYPE html>"),
        ("cut.jsonl.gz", compressed["gz"][:-40], "cut short or damaged"),
        ("not.jsonl.gz", GOOD.encode(), "cut short or damaged"),
        ("cut.jsonl.zst", compressed["zst"][:-40], "cut short or damaged"),
        ("not.jsonl.zst", GOOD.encode(), "cut short or damaged"),
    ):
        (tmp_path / name).write_bytes(content)
        message = fails(capsys, out, str(tmp_path / name))
        assert expected in message
        assert name in message


def test_a_parquet_without_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"url": ["a"], "title": ["b"]}), tmp_path / "a.parquet")
    message = fails(capsys, tmp_path / "data", str(tmp_path / "a.parquet"))
    assert "which column holds the text? It has url, title" in message
    message = fails(capsys, tmp_path / "data", str(tmp_path / "a.parquet"), "--column", "text")
    assert "no text column 'text'; it has url, title" in message


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what the test put into `files`: path -> (status, announced length or None, body)."""

    files: dict[str, tuple[int, int | None, bytes]]

    def do_GET(self) -> None:
        status, length, body = self.files.get(self.path, (404, None, b"gone"))
        self.send_response(status)
        self.send_header("Content-Length", str(length if length is not None else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(files: dict[str, tuple[int, int | None, bytes]]) -> Iterator[str]:
    handler = type("Files", (Handler,), {"files": files})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_downloads_that_come_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRY_S", 0.0)
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").unlink()
    page = b"<!DOCTYPE html><html>Log in to your network</html>"
    files = {
        "/cut.parquet": (200, len(data), data[:-100]),
        "/page.parquet": (200, None, page),
        "/page.txt": (200, None, page),
        "/good.parquet": (200, None, data),
        "/good.jsonl": (200, None, GOOD.encode()),
        "/error.jsonl": (500, None, b"oops"),
        "/input.txt": (200, None, b"To be, or not to be"),
    }
    out = tmp_path / "data"
    with serving(files) as address:
        for name, expected in (
            ("cut.parquet", "bytes came"),
            ("page.parquet", "a web page came in its place"),
            ("page.txt", "a web page came in its place"),
            ("error.jsonl", "Internal Server Error"),
            ("absent.jsonl", "cannot download"),
            ("good.pdf", "the address must end in one of"),
        ):
            message = fails(capsys, out, f"{address}/{name}")
            assert expected in message
            assert name in message
        published = corpora.CORPORA["shakespeare"]
        assert isinstance(published, corpora.PublishedFile)
        elsewhere = dataclasses.replace(published, url=f"{address}/input.txt")
        monkeypatch.setitem(corpora.CORPORA, "shakespeare", elsewhere)
        assert "not the published file" in fails(capsys, out, "shakespeare")
        arguments = [f"{address}/good.parquet", f"{address}/good.jsonl", "--tokenizer", "bytes"]
        assert main(["prepare", *arguments, "--out", str(out)]) == 0
    dataset = open_dataset(out)
    assert dataset.train.n_documents + dataset.val.n_documents == 1050
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert main(["prepare", *arguments, "--out", str(out)]) == 0  # done: the server is not asked again


def test_fewer_ids_than_one_window(tmp_path: Path) -> None:
    from myna.data.batches import TrainStream
    from myna.errors import DataError

    (tmp_path / "a.txt").write_text("short\nand shorter\n")
    assert (
        main(["prepare", str(tmp_path / "a.txt"), "--out", str(tmp_path / "d"), "--tokenizer", "bytes"]) == 0
    )
    with pytest.raises(DataError, match="one window needs 65"):
        TrainStream(open_dataset(tmp_path / "d").train, 64, seed=0)
