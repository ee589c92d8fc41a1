"""What goes wrong in a worker process is told by the parent."""

from pathlib import Path

import pytest

from myna.data.prepare.chunks import Chunk
from myna.data.prepare.worker_pool import WorkerPool
from myna.data.sources.source import ReadOptions, Source
from myna.errors import ChildError, DataError
from myna.text.tokenizer import Tokenizer


def test_errors_in_a_worker_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A defect of ours shows its traceback and exits 1; bad input is what it is in this process."""
    (tmp_path / "bad.jsonl").write_text("{")
    defect = Chunk(0, 0, (Source("odd.file", "odd.file", "no such kind", sha256="published"),), 1)
    bad = Chunk(1, 0, (Source("bad.jsonl", str(tmp_path / "bad.jsonl"), "jsonl"),), 1)
    with WorkerPool(1, Tokenizer.bytes(), ReadOptions(), tmp_path) as pool:
        with pytest.raises(ChildError, match=r"a worker process that encoded odd.file: KeyError") as raised:
            pool.submit(defect).result()
        assert raised.value.exit_code == 1
        told = capfd.readouterr().err
        assert told.startswith("Traceback")
        assert "in read_texts" in told
        with pytest.raises(DataError, match="line 1: not JSON"):
            pool.submit(bad).result()
    assert capfd.readouterr().err == ""
