"""Corpora on the hub, against a stand-in for its API on this machine."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from myna.data.shards import open_dataset
from myna.data.sources.documents import documents
from myna.data.sources.hub import choose_files
from myna.errors import DataError

pytest.importorskip("huggingface_hub")
SHA = "0123456789abcdef0123456789abcdef01234567"


def parquet(texts: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue()


def jsonl(texts: list[str]) -> bytes:
    return zstandard.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())


def lines(texts: list[str], **others: object) -> bytes:
    return "".join(json.dumps({"text": text, **others}) + "\n" for text in texts).encode()


def tar(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


PARTS = ("10BT-0", "10BT-1", "full", "chunk", "old", "c4-0", "c4-1", "arxiv", "book", "2005-06", "2005-07")
TEXTS = {part: [f"{part} text {n}\n" for n in range(300)] for part in PARTS}
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "HuggingFaceFW/fineweb-edu": {
        "README.md": b"# FineWeb-Edu",
        "sample/10BT/000_00000.parquet": parquet(TEXTS["10BT-0"]),
        "sample/10BT/001_00000.parquet": parquet(TEXTS["10BT-1"]),
        "data/CC-MAIN-2024-10/train-00000-of-00001.parquet": parquet(TEXTS["full"]),
    },
    "cerebras/SlimPajama-627B": {
        "train/chunk1/example_train_0.jsonl.zst": jsonl(TEXTS["chunk"]),
        "validation/chunk1/example_holdout_0.jsonl.zst": jsonl(["never"]),
    },
    "allenai/c4": {
        "en/c4-train.00000-of-01024.json.gz": gzip.compress(
            lines(TEXTS["c4-0"], timestamp="2019-04-25T12:57:54Z", url="https://example.org")
        ),
        "en/c4-train.00001-of-01024.json.gz": gzip.compress(lines(TEXTS["c4-1"])),
        "en/c4-validation.00000-of-00008.json.gz": gzip.compress(lines(["never"])),
        "realnewslike/c4-train.00000-of-00512.json.gz": gzip.compress(lines(["never"])),
    },
    "togethercomputer/RedPajama-Data-1T-Sample": {
        "RedPajama-Data-1T-Sample.py": b"raise SystemExit",
        "arxiv_sample.jsonl": lines(TEXTS["arxiv"], meta={"timestamp": "2019"}),
        "book_sample.jsonl": lines(TEXTS["book"], meta={"short_book_title": "A"}),
    },
    "segyges/OpenWebText2": {
        "README.md": b"# OpenWebText2",
        "openwebtext2.jsonl.zst.tar": tar(
            {
                f"{part}.jsonl.zst": zstandard.compress(lines(TEXTS[part], meta={"lang": "en"}))
                for part in PARTS[-2:]
            }
        ),
    },
    "someone/scripted": {"scripted.py": b"raise SystemExit"},
    "someone/scripted@refs/convert/parquet": {"default/train/0000.parquet": parquet(TEXTS["old"])},
}
CARDS = {
    "HuggingFaceFW/fineweb-edu": {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]},
            {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
        ]
    }
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub that a download needs."""

    broken: set[str]
    fetched: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.dataset(match[1], match[2])
        elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
            name = (
                match[1] if match[3] in REPOSITORIES.get(match[1], {}) else f"{match[1]}@refs/convert/parquet"
            )
            data = REPOSITORIES[name][match[3]]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": SHA}
            if match[3] in self.broken:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if body:
                self.fetched.append(match[3])
            self.send(200, data, headers, body)
        else:
            self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)

    def dataset(self, name: str, revision: str | None) -> None:
        files = REPOSITORIES.get(name if revision in (None, "main") else f"{name}@{revision}")
        if files is None:
            code = "RepoNotFound" if name not in REPOSITORIES else "RevisionNotFound"
            self.send(404, b"{}", {"X-Error-Code": code})
            return
        siblings: list[dict[str, Any]] = []
        for file, data in files.items():
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append({"rfilename": file, "size": len(data), "blobId": "0" * 40, "lfs": lfs})
        info = {"id": name, "sha": SHA, "siblings": siblings, "cardData": CARDS.get(name, {}), "tags": []}
        self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, data: bytes, headers: dict[str, str], body: bool = True) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def hub(broken: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yields the stand-in's address and the list of files fetched from it."""
    fetched: list[str] = []
    handler = type("StandIn", (Hub,), {"broken": set(broken), "fetched": fetched})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", fetched
        finally:
            server.shutdown()
            thread.join()


def run(address: str, *args: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "myna", "prepare", *args, "--tokenizer", "bytes"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("fineweb-edu", ["10BT-0", "10BT-1"]),
        ("fineweb-edu:full", ["full"]),
        ("slimpajama", ["chunk"]),
        ("c4", ["c4-0", "c4-1"]),
        ("redpajama", ["arxiv", "book"]),
        ("openwebtext2", ["2005-06", "2005-07"]),
        ("hf:someone/scripted", ["old"]),
    ],
)
def test_a_named_corpus_is_fetched_checked_and_prepared(tmp_path: Path, spec: str, parts: list[str]) -> None:
    with hub() as (address, fetched):
        done = run(address, spec, "--out", str(tmp_path / "data"))
        assert done.returncode == 0, done.stderr
        asked = list(fetched)
        assert run(address, spec, "--out", str(tmp_path / "data")).returncode == 0
        assert fetched == asked
    dataset = open_dataset(tmp_path / "data")
    texts = [text for part in parts for text in TEXTS[part]]
    assert dataset.info["source"]["val_fraction"] == 0.01
    assert dataset.train.n_documents + dataset.val.n_documents == len(texts)
    (tmp_path / "local.jsonl").write_bytes(zstandard.decompress(jsonl(texts)))
    expected = "".join(documents([str(tmp_path / "local.jsonl")], split="train", val_fraction=0.01)).encode()
    ids = dataset.train.read(0, dataset.train.n_tokens)
    assert bytes(ids[ids < 256].astype("uint8")) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "local.jsonl"]


def test_what_the_hub_cannot_give(tmp_path: Path) -> None:
    with hub(broken=("sample/10BT/001_00000.parquet",)) as (address, _):
        for spec, expected in (
            ("hf:no/such", "no such dataset on the hub"),
            ("hf:HuggingFaceFW/fineweb-edu:nothing", "has no parquet or JSONL files for training"),
            ("fineweb-edu", "not the published file, its SHA-256 differs"),
        ):
            done = run(address, spec, "--out", str(tmp_path / "data"))
            assert done.returncode == 2, done.stderr
            assert expected in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
            assert not (tmp_path / "data").exists()
    done = run("http://127.0.0.1:9", "fineweb-edu", "--out", str(tmp_path / "data"))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "cannot ask the hub" in done.stderr


def test_files_are_chosen_for_training() -> None:
    names = ["20231101.en/train-0.parquet", "20231101.de/train-0.parquet", "README.md", "x.py"]
    assert choose_files(names, "20231101.de", {}) == ["20231101.de/train-0.parquet"]
    assert choose_files(["data/a.jsonl", "data/test.jsonl"], "", {}) == ["data/a.jsonl"]


def test_a_damaged_tar_file_is_refused(tmp_path: Path) -> None:
    whole = tar(
        {
            "a.jsonl": lines(TEXTS["book"]),
            "b.txt": b"no JSONL",
            "c.jsonl.gz": gzip.compress(lines(["last\n"])),
        }
    )
    path = tmp_path / "a.jsonl.tar"
    path.write_bytes(whole)
    assert list(documents([str(path)])) == [*TEXTS["book"], "last\n"]
    for data in (whole[:2000], b"no tar file" * 100):
        path.write_bytes(data)
        with pytest.raises(DataError, match="is cut short or damaged"):
            list(documents([str(path)]))
