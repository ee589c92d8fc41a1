"""The first losses of two small shapes are those that were stored when there was one network and one optimizer.

The numbers are what these tests found at commit c9680ed. Run this file as a script to print them again:

    OMP_NUM_THREADS=1 PYTHONPATH=src python -P tests/parity/test_first_losses.py

No dropout: its draws are not the same in every build of torch. The rest is the same on any processor, but for rounding.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import pytest

from myna.cli import main
from myna.run import Run

NATS = 1e-5
TEXT = "".join(
    f"{n} ships left port {n * 11 % 29}, and {n * n % 23} of them came back.\n" for n in range(1, 301)
)
STEPS = (
    "--steps 5 --warmup-steps 2 --eval-every 0 --sample-every 0 --precision fp32 --device cpu --no-compile"
)
# Two micro-batches a step.
SHAPES = {
    "shakespeare-char": (
        "bytes",
        "--n-layer 2 --n-head 3 --n-embd 48 --block-size 32 --sequence-length 32 --batch-tokens 256 --micro-batch 4",
    ),
    "gpt2-124m": (
        "gpt2",
        "--n-layer 2 --n-head 2 --n-embd 32 --block-size 64 --sequence-length 64 --batch-tokens 512 --micro-batch 4",
    ),
}
STORED = {
    "shakespeare-char": [5.5792501, 5.4466577, 5.2193882, 5.0705378, 5.0051575],
    "gpt2-124m": [10.8098445, 10.7082033, 10.5564857, 10.4450793, 10.3936844],
}


def first_losses(recipe: str, folder: Path) -> list[float]:
    """What five steps record, on data prepared for them."""
    tokens, shape = SHAPES[recipe]
    text, data, run = folder / "text.txt", folder / "data", folder / "run"
    text.write_text(TEXT, "utf-8")
    prepare = ["prepare", str(text), "--out", str(data), "--tokenizer", tokens, "--workers", "1"]
    assert main(prepare) == 0
    rate = ["--learning-rate", "0.002", "--data", str(data), "--out", str(run)]
    assert main(["train", recipe, *STEPS.split(), *shape.split(), *rate]) == 0
    return [record["train_loss"] for record in Run(run).metrics() if "train_loss" in record]


@pytest.mark.parametrize("recipe", SHAPES)
def test_the_first_losses_are_the_stored_ones(recipe, tmp_path):
    assert first_losses(recipe, tmp_path) == pytest.approx(STORED[recipe], abs=NATS)


if __name__ == "__main__":
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
            losses = first_losses(name, Path(temporary))
        print(name, [round(loss, 7) for loss in losses])
