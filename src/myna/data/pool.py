"""The parent's side of the worker processes: submit a piece, get a future for its record."""

import json
import os
import pickle
import queue
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import myna.errors as errors
from myna.data.encode import encode_piece
from myna.data.pieces import Piece
from myna.data.worker import piece_to_json
from myna.errors import DataError, OutputError
from myna.text.tokenizer import Tokenizer


class Workers:
    """Encodes pieces in `count` processes, or in this one if count is 0.

    Each process has a thread here that hands it one piece at a time and waits for the answer.

    Args:
        tokenizer: each process gets a copy.
        folder: where the encoded pieces go.
    """

    def __init__(
        self,
        count: int,
        tokenizer: Tokenizer,
        val_fraction: float,
        skip_bad: bool,
        folder: Path,
    ) -> None:
        self.count = count
        self._tokenizer = tokenizer
        self._call: dict[str, Any] = {
            "val_fraction": val_fraction,
            "skip_bad": skip_bad,
            "folder": str(folder),
        }
        self._threads = ThreadPoolExecutor(max(count, 1), thread_name_prefix="prepare")
        self._processes = [start_worker() for _ in range(count)]
        # A process and what it must be told before its next piece: at first the tokenizer, in the thread that hands it
        # its piece, since a process reads only when it has started.
        self._idle: queue.SimpleQueue[tuple[subprocess.Popen[bytes], bytes]] = queue.SimpleQueue()
        pickled = pickle.dumps(tokenizer) if count else b""
        for process in self._processes:
            self._idle.put((process, pickled))

    def submit(self, piece: Piece) -> "Future[dict[str, Any]]":
        """A future for the piece's record. It raises what `encode_piece` does, and OutputError if the process died."""
        return self._threads.submit(self._remote if self.count else self._local, piece)

    def _local(self, piece: Piece) -> dict[str, Any]:
        call = self._call
        return encode_piece(
            piece, self._tokenizer, call["val_fraction"], call["skip_bad"], Path(call["folder"])
        )

    def _remote(self, piece: Piece) -> dict[str, Any]:
        process, greeting = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(greeting)
            process.stdin.write(json.dumps(self._call | {"piece": piece_to_json(piece)}).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = b""
        finally:
            self._idle.put((process, b""))
        if not answer:
            raise OutputError(
                f"a worker process ended (code {process.wait()}) while it encoded {piece.segments[0].name}; if memory "
                "ran out, run the same command again with fewer --workers"
            )
        record = json.loads(answer)
        if "error" not in record:
            return record
        if record["error"] == "OSError":
            raise OSError(record["errno"], record["message"], record["file"])
        if record["error"] == "defect":
            raise RuntimeError(f"in a worker process:\n{record['message']}")
        kind = getattr(errors, record["error"], DataError)
        raise kind(record["message"])

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_worker() -> "subprocess.Popen[bytes]":
    """Starts a worker process, which waits for its tokenizer. It ends when its stdin is closed: when this one dies."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "RAYON_NUM_THREADS": "1",  # one process a core already
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "myna.data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        process_group=0,  # Ctrl-C is for the parent, which decides
    )
