"""The parent's side of the worker processes: submit a chunk, get a future for its record."""

import contextlib
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

from myna.data.prepare.chunks import Chunk
from myna.data.prepare.encode import encode_chunk
from myna.data.sources.source import ReadOptions
from myna.errors import OutputError, from_record
from myna.text.tokenizer import Tokenizer


class WorkerPool:
    """Encodes chunks in `count` processes, or in this one if count is 0.

    Each process has a thread here that hands it one chunk at a time and waits for the answer. Without processes a
    chunk is encoded by `submit`, in the thread that calls it.

    Args:
        tokenizer: each process gets a copy.
        folder: where the encoded chunks go.
    """

    def __init__(self, count: int, tokenizer: Tokenizer, options: ReadOptions, folder: Path) -> None:
        self.count = count
        self._job = tokenizer, options, folder
        self._threads = ThreadPoolExecutor(max(count, 1), thread_name_prefix="prepare")
        self._processes = [start_worker() for _ in range(count)]
        # A process and what it must be told before its next chunk: at first the tokenizer, in the thread that hands it
        # its chunk, since a process reads only when it has started.
        self._idle: queue.SimpleQueue[tuple[subprocess.Popen[bytes], bytes]] = queue.SimpleQueue()
        greeting = pickle.dumps(self._job) if count else b""
        for process in self._processes:
            self._idle.put((process, greeting))

    def submit(self, chunk: Chunk) -> "Future[dict[str, Any]]":
        """A future for the chunk's record.

        It raises what `encode_chunk` does, OutputError if the process died, and ChildError for a defect in it, whose
        traceback goes to stderr.
        """
        if self.count:
            return self._threads.submit(self._remote, chunk)
        done: Future[dict[str, Any]] = (
            Future()
        )  # here and now: a thread would have to be waited for after a signal
        try:
            done.set_result(encode_chunk(chunk, *self._job))
        except Exception as error:
            done.set_exception(error)
        return done

    def _remote(self, chunk: Chunk) -> dict[str, Any]:
        process, greeting = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(greeting + pickle.dumps(chunk))
            process.stdin.flush()
            answer = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = b""
        finally:
            self._idle.put((process, b""))
        if not answer:
            raise OutputError(
                f"a worker process ended (code {process.wait()}) while it encoded {chunk.parts[0].name}; if memory "
                "ran out, run the same command again with fewer --workers"
            )
        record = json.loads(answer)
        if "error" in record:
            sys.stderr.write(record["error"].get("traceback", ""))
            raise from_record(record["error"], f"a worker process that encoded {chunk.parts[0].name}")
        return record

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_worker() -> "subprocess.Popen[bytes]":
    """Starts a worker process, which waits for its tokenizer. It ends when its stdin is closed: when this one dies."""
    root = str(Path(__file__).parents[3])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "RAYON_NUM_THREADS": "1",  # one process a core already
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "myna.data.prepare.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        process_group=0,  # Ctrl-C is for the parent, which decides
    )
