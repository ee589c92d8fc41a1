"""MODEL, as every command takes it: a run, a checkpoint, a Hugging Face folder, or a hub name."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from myna.errors import CheckpointError, ModelError
from myna.model.checkpoint import MANIFEST, newest_sound, verify
from myna.model.gpt2 import GPT
from myna.model.weights import pretrained_directory
from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Opened:
    """A model ready to use, in eval mode."""

    model: GPT
    tokenizer: Tokenizer | None  # None: the folder has none, and the vocabulary is not GPT-2's
    name: str  # for people: where it came from
    path: Path  # the directory that was read


def open_model(spec: str | Path, device: str | torch.device = "cpu") -> Opened:
    """Finds, verifies and loads a model.

    Args:
        spec: a run directory (its newest sound checkpoint), a checkpoint, a Hugging Face GPT-2 directory (which
            needs no manifest), or a hub name such as `gpt2`.
    Raises:
        ModelError, CheckpointError, TokenizerError, DownloadError: what is missing or wrong, and where.
    """
    path = Path(spec)
    if (path / "checkpoints").is_dir() or (path / "recipe.json").exists():
        found = newest_sound(path / "checkpoints", _warn_damaged)
        if found is None:
            raise CheckpointError(
                f"the run {path} has no sound checkpoint yet; train it further, or give another model"
            )
        path = found
    else:
        path = pretrained_directory(spec)
        if (path / MANIFEST).exists():
            verify(path)
    model = GPT.from_pretrained(path).to(device).eval()
    tokenizer = _tokenizer_of(path, model.config.vocab_size)
    return Opened(model, tokenizer, str(spec), path)


def _warn_damaged(path: Path, error: CheckpointError) -> None:
    warnings.warn(f"{error}; looking at the one before {path.name}", stacklevel=4)


def _tokenizer_of(path: Path, vocab_size: int) -> Tokenizer | None:
    if any((path / name).exists() for name in ("tokenizer.json", "vocab.json")):
        tokenizer = Tokenizer.load(path)
    elif vocab_size == 50257:  # a GPT-2 folder with the weights alone
        tokenizer = Tokenizer.gpt2()
    else:
        return None
    if tokenizer.n_vocab > vocab_size:
        raise ModelError(
            f"{path}: the tokenizer has {tokenizer.n_vocab} ids, the model {vocab_size}; they don't belong together"
        )
    return tokenizer
