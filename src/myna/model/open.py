"""MODEL, as every command takes it: a run, a checkpoint, a Hugging Face folder, or a hub name."""

import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from myna.errors import CheckpointError, ModelError
from myna.files import reading
from myna.model.checkpoint import MANIFEST, newest_sound, verify
from myna.model.network import Network
from myna.model.remote import fetch_model
from myna.model.weights import load_network, pretrained_directory, read_shape
from myna.run import Run
from myna.store.address import is_url
from myna.store.here import here
from myna.text.exchange import names_in
from myna.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Opened:
    """A model ready to use, in eval mode."""

    model: Network
    name: str  # for people: where it came from
    path: Path  # the directory that was read

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer in the folder; GPT-2's where it has the weights alone and the vocabulary is GPT-2's, else None.

        Raises:
            ModelError, TokenizerError, UnreadableError: what stands there can't be read, or is another model's.
        """
        return _tokenizer_of(self.path, self.model.config.vocab_size)

    def tokenizer_or(self, named: str | None) -> Tokenizer:
        """The tokenizer to use with this model: the named one, else its own.

        Args:
            named: what `Tokenizer.open` takes, or None.
        Raises:
            ModelError: there is none, or it has more ids than the model.
        """
        tokenizer = Tokenizer.open(named) if named else self.tokenizer
        if tokenizer is None:
            raise ModelError(f"{self.path} has no tokenizer beside the weights; name one with --tokenizer")
        if tokenizer.n_vocab > self.model.config.vocab_size:
            raise ModelError(
                f"tokenizer {tokenizer.name} has {tokenizer.n_vocab} ids and the model {self.model.config.vocab_size}; "
                "use the tokenizer that the model was trained with"
            )
        return tokenizer


def open_model(spec: str | Path, device: str | torch.device = "cpu") -> Opened:
    """Finds, verifies and loads a model.

    Args:
        spec: see `find_model`.
    Raises:
        ModelError, CheckpointError, TokenizerError, DownloadError: what is missing or wrong, and where.
    """
    path = find_model(spec)
    model = load_network(path).to(device).eval()
    return Opened(model, str(spec), path)


def open_tokenizer(spec: str | Path) -> Tokenizer:
    """The tokenizer of a model, whose weights are not loaded.

    Raises:
        ModelError: it has none. Others: see `open_model`.
    """
    path = find_model(spec)
    tokenizer = _tokenizer_of(path, read_shape(path)[1].vocab_size)
    if tokenizer is None:
        raise ModelError(f"{path} has no tokenizer beside the weights; put its tokenizer.json there")
    return tokenizer


def find_model(spec: str | Path) -> Path:
    """The folder with the weights of MODEL, verified where it has a manifest.

    Args:
        spec: a run directory (its newest sound checkpoint), a checkpoint, a Hugging Face folder of a network that we
            have (which needs no manifest), the URL of one of these, or a hub name such as `gpt2`.
    Raises:
        ModelError, CheckpointError, DownloadError; UnreadableError: it is there and can't be read.
    """
    path = find_folder(spec)
    if is_url(spec):  # verified as it came
        return path
    with reading(path):
        is_run = (path / "checkpoints").is_dir() or (path / "recipe.json").exists()
    if is_run:
        found = newest_sound(path / "checkpoints", _warn_damaged)
        if found is None and (why := Run(path).why_no_model()):
            raise ModelError(f"{why}; give a folder with a model")
        if found is None:
            raise CheckpointError(
                f"the run {path} has no sound checkpoint in {path / 'checkpoints'}; put it back if it was moved, "
                "train the run further if it was never saved, or give another model"
            )
        return found
    with reading(path / MANIFEST):
        has_manifest = (path / MANIFEST).exists()
    if has_manifest:
        verify(path)
    return path


def find_folder(spec: str | Path) -> Path:
    """The folder that MODEL names, a run's too. Nothing in it is read. Of the hub's it is the local copy, and of a URL
    the folder with the weights, fetched and verified.

    Raises:
        ModelError, DownloadError: there is none. CheckpointError: of a URL: what is there is damaged.
    """
    if not isinstance(spec, str | os.PathLike):
        raise ModelError(f"a model is named by a path or a name, not by {type(spec).__name__}")
    path = here(spec, fetch_model, ModelError)
    return pretrained_directory(path if path.exists() else spec)  # a name, which no door may change


def _warn_damaged(path: Path, error: CheckpointError) -> None:
    warnings.warn(f"{error}; looking at the one before {path.name}", stacklevel=4)


def _tokenizer_of(path: Path, vocab_size: int) -> Tokenizer | None:
    with reading(path):
        names = names_in(path)
    if names:
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
