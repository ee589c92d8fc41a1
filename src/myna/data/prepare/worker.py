"""A worker process: the tokenizer and then chunks come in on stdin, records go out on stdout, a JSON line each.

It is a program of its own (`python -m myna.data.prepare.worker`) rather than a multiprocessing child: so it never
imports the caller's __main__ (a notebook, a script without a guard), it does not matter how the caller starts its own
processes, and nothing is forked while threads run. It ends when its stdin does: a parent that is killed takes it along.
What comes in is pickled, by the parent that started this process: five times as fast as a tokenizer's JSON.
"""

import contextlib
import json
import os
import pickle
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from myna.data.prepare.chunks import Chunk
from myna.data.prepare.encode import encode_chunk
from myna.data.sources.source import ReadOptions
from myna.errors import to_record
from myna.text.tokenizer import Tokenizer


def run(chunk: Chunk, tokenizer: Tokenizer, options: ReadOptions, folder: Path) -> dict[str, Any]:
    """One chunk's record, or what went wrong in a form that `worker_pool.py` raises again."""
    try:
        return encode_chunk(chunk, tokenizer, options, folder)
    except Exception as error:
        return {"error": to_record(error)}


def main() -> None:
    """Reads the tokenizer, then a chunk at a time, until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    try:
        tokenizer, options, folder = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent was done, or gone, before there was anything to do
        return
    chunks: queue.Queue[Chunk] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                chunks.put(pickle.load(sys.stdin.buffer))
        os._exit(0)  # the parent is gone, or done with us; nobody wants the chunk that is in work

    threading.Thread(target=read, daemon=True).start()
    while True:
        answers.write(json.dumps(run(chunks.get(), tokenizer, options, folder)).encode() + b"\n")


if __name__ == "__main__":
    main()
