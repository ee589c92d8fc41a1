"""A worker process: the tokenizer and then pieces come in on stdin, records go out on stdout, a JSON line each.

It is a program of its own (`python -m myna.data.worker`) rather than a multiprocessing child: so it never imports the
caller's __main__ (a notebook, a script without a guard), it does not matter how the caller starts its own processes,
and nothing is forked while threads run. It ends when its stdin does: a parent that is killed takes it along.
"""

import dataclasses
import json
import os
import pickle
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from myna.data.encode import encode_piece
from myna.data.pieces import Piece
from myna.data.reading import Segment
from myna.errors import MynaError
from myna.text.tokenizer import Tokenizer


def piece_to_json(piece: Piece) -> dict[str, Any]:
    """A piece as plain values."""
    return dataclasses.asdict(piece)


def piece_from_json(value: dict[str, Any]) -> Piece:
    """The piece that `piece_to_json` wrote."""
    return Piece(**{**value, "segments": tuple(Segment(**segment) for segment in value["segments"])})


def run(call: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """One piece: its record, or what went wrong in a form that `pool.py` raises again."""
    try:
        piece = piece_from_json(call["piece"])
        return encode_piece(piece, tokenizer, call["val_fraction"], call["skip_bad"], Path(call["folder"]))
    except MynaError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except OSError as error:
        return {"error": "OSError", "errno": error.errno, "message": error.strerror, "file": error.filename}
    except Exception:  # a defect of ours, whose traceback is for the parent to show
        return {"error": "defect", "message": traceback.format_exc()}


def main() -> None:
    """Reads the tokenizer, then a call a line, until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    try:
        # From our own parent, and five times as fast as its JSON.
        tokenizer: Tokenizer = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent was done, or gone, before there was anything to do
        return
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)  # the parent is gone, or done with us; whatever piece is in work is not wanted

    threading.Thread(target=read, daemon=True).start()
    while True:
        answers.write(json.dumps(run(json.loads(lines.get()), tokenizer)).encode() + b"\n")


if __name__ == "__main__":
    main()
