"""Run folders whose metrics are made up: a small one, and one that follows llm.c's log."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from myna.reference_curves import LLMC_LOSSES, LLMC_STEP_TOKENS, llmc_steps
from myna.references import gpt2_sha256
from myna.run import Run
from myna.text.tokenizer import Tokenizer

MakeRun = Callable[..., Path]


def dataset_record(corpus: list[str] | None, tokenizer: str | None, **more: object) -> dict[str, object]:
    """What recipe.json says of one dataset; the tokenizer by its name."""
    named = {"gpt2": Tokenizer.gpt2, "bytes": Tokenizer.bytes}
    sha256 = tokenizer and (named[tokenizer]().sha256 if tokenizer in named else tokenizer)
    return {"path": "data/x", "corpus": corpus, "tokenizer": sha256, "identity": "0f"} | more


def _make_run(path: Path, steps: int = 60, hellaswag: int = 0, **recipe: object) -> Path:
    """A run whose loss falls as 3 + 5 / step, with an evaluation every 20 steps."""
    path.mkdir(parents=True)
    run = Run(path)
    run.write_recipe(
        {"name": path.name, "corpus": ["pydoc"], "tokenizer": "train:2048", "n_layer": 4} | recipe
    )
    for step in range(1, steps + 1):
        at = {"step": step, "tokens": 1000 * step}
        run.append_metrics(at | {"train_loss": 3 + 5 / step})
        if step % 20 == 0:
            run.append_metrics(at | {"val_loss": 3.5 + 5 / step, "val_bits_per_byte": 1.25})
            if hellaswag:
                scores = {"hellaswag_acc": 0.2, "hellaswag_acc_token": 0.26, "hellaswag_items": hellaswag}
                run.append_metrics(at | scores)
    return path


def write_metrics(path: Path, records: list[dict[str, object]]) -> None:
    """All at once: a run of thousands of steps is made in no time."""
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


LLMC_FILES = {"format": "llm.c", "val_files": ["fineweb_val_000000.bin"]}


def _make_gpt2_run(
    path: Path,
    steps: int = 19_560,
    apart: Callable[[int], float] = lambda step: 0.0,
    corpus: list[str] | None = None,
    hellaswag: float | None = None,
    **recipe: object,
) -> Path:
    """GPT-2 124M on FineWeb: llm.c's validation losses, `apart` nats more at a step, with a little noise.

    Args:
        corpus: as a dataset of ours names it; None for llm.c's own files.
        hellaswag: the accuracy at the end.
    """
    path.mkdir(parents=True)
    run, noise = Run(path), np.random.default_rng(0)
    about = dataset_record(corpus, gpt2_sha256(), **({} if corpus else LLMC_FILES))
    shape = {"network": "gpt2", "n_layer": 12, "n_embd": 768, "sequence_length": 1024, "tokenizer": "gpt2"}
    usual = {"steps": 19_560, "batch_tokens": LLMC_STEP_TOKENS, "learning_rate": 6e-4, "warmup_steps": 715}
    run.write_recipe({"name": "gpt2-124m", "trained_on": [about]} | shape | usual | recipe)
    records: list[dict[str, object]] = []
    for step in dict.fromkeys([*range(50, steps + 1, 50), steps]):
        loss = float(np.interp(step, llmc_steps(), LLMC_LOSSES)) + apart(step)
        at = {"step": step, "tokens": step * LLMC_STEP_TOKENS}
        records.append(at | {"train_loss": loss + noise.normal(0, 0.04), "learning_rate": 6e-4})
        if step in (*range(0, steps, 250), steps):
            records.append(at | {"val_loss": loss + noise.normal(0, 0.003)})
    if hellaswag is not None:
        records.append(at | {"hellaswag_acc_token": hellaswag, "hellaswag_items": 10_042})
    write_metrics(path, records)
    return path


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Makes a small run: (path, steps, hellaswag items, recipe fields)."""
    return _make_run


@pytest.fixture(scope="session")
def make_gpt2_run() -> MakeRun:
    """Makes a run beside llm.c's: (path, steps, nats apart at a step, corpus, accuracy, recipe fields)."""
    return _make_gpt2_run


@pytest.fixture(scope="session")
def dataset() -> Callable[..., dict[str, object]]:
    """What recipe.json says of one dataset: (corpus, tokenizer's name or hash, more)."""
    return dataset_record


@pytest.fixture(scope="session")
def write_records() -> Callable[[Path, list[dict[str, object]]], None]:
    """Writes a run's metrics.jsonl at once: (path, records)."""
    return write_metrics
