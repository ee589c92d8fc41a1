"""Calls of `myna prepare` and `myna train` on text that is on every machine."""

import subprocess
import sys
from pathlib import Path

# Small enough for a step of milliseconds.
TINY_RUN = (
    "shakespeare-char --n-layer 1 --n-head 2 --n-embd 32 --block-size 32 --sequence-length 32 --batch-tokens 256 "
    "--micro-batch 4 --warmup-steps 2 --average-decay 0 --no-compile --precision fp32"
)


def myna(*args: str) -> None:
    """Runs a command; what it prints goes to the log, on the standard error.

    Raises:
        SystemExit: it failed; its own line is in the log.
    """
    code = subprocess.run(
        [sys.executable, "-P", "-m", "myna", *args], stdout=sys.stderr, check=False
    ).returncode
    if code:
        raise SystemExit(code)


def prepared(tiny: bool) -> Path:
    """The dataset in this folder, prepared once: Python's own documentation in GPT-2's tokens."""
    data = Path("data-tiny" if tiny else "data")
    text = Path("text.txt")
    if tiny:
        text.write_text("".join(f"{n} green bottles hanging on the wall\n" for n in range(2000)))
    corpus, tokenizer = (str(text), "bytes") if tiny else ("pydoc", "gpt2")
    myna("prepare", corpus, "--out", str(data), "--tokenizer", tokenizer)
    return data


def recipe(tiny: bool) -> list[str]:
    """The first arguments of `myna train`."""
    return TINY_RUN.split() if tiny else ["gpt2-124m"]
