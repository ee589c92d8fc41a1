"""`myna import`: files of other programs become ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.out import check_free, new_folder
from myna.errors import DataError, ModelError
from myna.files import reading
from myna.paths import cannot_use

if TYPE_CHECKING:
    from myna.model.exchange.nanogpt import Checkpoint
    from myna.text.tokenizer import Tokenizer

HEAD_BYTES = 64
NO_TOKENIZER = "none"


@dataclass(frozen=True)
class Import:
    """Turn a checkpoint of build-nanogpt or nanoGPT into a model folder. Weights only: nothing in the file is run."""

    file: tyro.conf.Positional[Path]
    """A checkpoint that torch.save wrote, such as log/model_19072.pt or out/ckpt.pt."""
    out: Path
    """The folder to write: new, or empty. Transformers loads it directly."""
    tokenizer: str | None = None
    """The model's: gpt2, bytes, a folder or a file; none for the weights alone. Default: gpt2, where it fits."""
    gelu: Literal["auto", "tanh", "exact"] = "auto"
    """The activation. auto: tanh for build-nanogpt, exact for nanoGPT (which computed tanh until June 2023)."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that can be imported.

    Attributes:
        what: for people.
        is_it: whether a file that begins so is one.
        bring: does it, and prints what was done.
    """

    what: str
    is_it: Callable[[bytes], bool]
    bring: Callable[[Import], None]


def main(args: Sequence[str]) -> None:
    """Runs `myna import`."""
    refuse_empty(args)
    call = parse(Import, args, command="import")
    check_free(call.out)
    head = _head(call.file)
    for kind in KINDS:
        if kind.is_it(head):
            kind.bring(call)
            return
    known = "; ".join(kind.what for kind in KINDS)
    raise DataError(f"{call.file} is nothing that can be imported; give {known}")


def _head(path: Path) -> bytes:
    try:
        with reading(path), open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(cannot_use(error, path)) from error


def is_torch_file(head: bytes) -> bool:
    """Whether a file may be one of `torch.save`: a zip archive, or a pickle."""
    return head.startswith((b"PK\x03\x04", b"\x80"))


def import_checkpoint(call: Import) -> None:
    """build-nanogpt's and nanoGPT's checkpoints."""
    from myna.model.exchange.nanogpt import build, read_checkpoint
    from myna.model.exchange.torch_file import read_torch_file
    from myna.model.weights import save_network

    checkpoint = read_checkpoint(read_torch_file(call.file), str(call.file))
    tokenizer = tokenizer_for(checkpoint, call.tokenizer)
    n_vocab = checkpoint.rows if tokenizer is None else tokenizer.n_vocab
    gelu = checkpoint.gelu if call.gelu == "auto" else call.gelu
    network, notes = build(checkpoint, n_vocab, gelu)
    with new_folder(call.out) as folder:
        save_network(folder, network, tokenizer)
    print(f"{call.out}: {network.n_parameters():,} parameters from {call.file}, {checkpoint.about}")
    how = "as its project does" if gelu == checkpoint.gelu else "as --gelu says"
    for note in (*notes, f"GELU: {gelu}, {how}", f"tokenizer: {tokenizer.name if tokenizer else 'none'}"):
        print(f"  {note}")


def tokenizer_for(checkpoint: "Checkpoint", named: str | None) -> "Tokenizer | None":
    """The tokenizer of a checkpoint's model; None where it shall have none.

    Raises:
        ModelError: the one named, or GPT-2's where none is, has another number of ids than the model.
    """
    from myna.model.exchange.nanogpt import is_padded_to
    from myna.text.tokenizer import Tokenizer

    if named == NO_TOKENIZER:
        return None
    tokenizer = Tokenizer.gpt2() if named is None else Tokenizer.open(named)
    if not is_padded_to(checkpoint.rows, tokenizer.n_vocab):
        raise ModelError(
            f"{checkpoint.where} has a vocabulary of {checkpoint.rows:,}, and tokenizer {tokenizer.name} has "
            f"{tokenizer.n_vocab:,} ids; name the tokenizer that the model was trained with, or --tokenizer "
            f"{NO_TOKENIZER} for the weights alone"
        )
    return tokenizer


# What is imported is told by how a file begins. A new kind is a line here, and its function.
KINDS = (Kind("a checkpoint of build-nanogpt or nanoGPT (torch.save)", is_torch_file, import_checkpoint),)
