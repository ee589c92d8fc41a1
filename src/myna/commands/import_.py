"""`myna import`: files of other programs become ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.out import check_free, new_folder
from myna.errors import DataError, ModelError, UsageError
from myna.files import reading
from myna.paths import cannot_use
from myna.settings import flag

if TYPE_CHECKING:
    from myna.model.config import GeluName
    from myna.model.exchange.foreign import ForeignCheckpoint
    from myna.text.tokenizer import Tokenizer

# How a file of torch.save begins: as a zip archive, or as a pickle.
TORCH_FILE = (b"PK\x03\x04", b"\x80")
NO_TOKENIZER = "none"
GeluFlag = Literal["auto", "tanh", "exact"]
OF_A_CHECKPOINT, OF_A_LOG = ("tokenizer", "gelu"), ("batch_tokens", "size", "corpus")


@dataclass(frozen=True)
class Import:
    """Turn a checkpoint of build-nanogpt, nanoGPT or nanochat into a model folder. Weights only: nothing in the file is
    run.

    Or turn the log of build-nanogpt, llm.c or nanoGPT into a folder that `myna report` draws as a run."""

    file: tyro.conf.Positional[Path]
    """A checkpoint that torch.save wrote, such as log/model_19072.pt or out/ckpt.pt; or a log, such as log/log.txt.
    nanochat's model_NNNNNN.pt needs meta_NNNNNN.json beside it."""
    out: Path
    """The folder to write: new, or empty. Transformers loads a model's directly."""
    tokenizer: str | None = None
    """The model's: gpt2, bytes, a folder or a file; none for the weights alone. Default: gpt2, where it fits.
    nanochat keeps a model's own in a pickle, which is never opened, so name one."""
    gelu: GeluFlag = "auto"
    """The activation. auto: tanh for build-nanogpt, exact for nanoGPT (which computed tanh until June 2023).
    nanochat has none."""
    batch_tokens: int | None = None
    """Of a log: tokens in a step. Default: what the log states, else 524,288."""
    size: Literal["124M", "350M", "774M", "1558M"] | None = None
    """Of a log: the size of GPT-2 that was trained. `myna report` then compares with published values."""
    corpus: Literal["fineweb-edu", "fineweb"] | None = None
    """Of a log: what was trained on, in GPT-2's tokens. `myna report` then compares with published values."""

    def __post_init__(self) -> None:
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise UsageError(f"--batch-tokens is {self.batch_tokens}; give 1 or more")


def main(args: Sequence[str]) -> None:
    """Runs `myna import`."""
    refuse_empty(args)
    call = parse(Import, args, command="import")
    check_free(call.out)
    is_log = not _head(call.file).startswith(TORCH_FILE)
    refuse_others(call, is_log)
    if is_log:
        from myna.commands.import_log import AboutLog, import_log

        import_log(call.file, call.out, AboutLog(call.batch_tokens, call.size, call.corpus))
        return
    from myna.model.exchange.foreign import read_foreign
    from myna.model.weights import save_network

    checkpoint = read_foreign(call.file)
    gelu = gelu_for(checkpoint, call.gelu)
    tokenizer = tokenizer_for(checkpoint, call.tokenizer)
    network, notes = checkpoint.build(checkpoint.n_vocab if tokenizer is None else tokenizer.n_vocab, gelu)
    with new_folder(call.out) as folder:
        save_network(folder, network, tokenizer)
    print(f"{call.out}: {network.n_parameters():,} parameters from {call.file}, {checkpoint.about}")
    if gelu is not None:
        how = "as its project does" if gelu == checkpoint.gelu else "as --gelu says"
        notes.append(f"GELU: {gelu}, {how}")
    for note in (*notes, f"tokenizer: {tokenizer.name if tokenizer else 'none'}"):
        print(f"  {note}")


def refuse_others(call: Import, is_log: bool) -> None:
    """
    Raises:
        UsageError: a flag of checkpoints with a log, or the other way.
    """
    given = [
        name
        for name in (OF_A_CHECKPOINT if is_log else OF_A_LOG)
        if getattr(call, name) not in (None, "auto")
    ]
    if given:
        kind, other = ("a checkpoint", "no checkpoint of torch.save") if is_log else ("a log", "a checkpoint")
        raise UsageError(f"{flag(given[0])} is of {kind}, and {call.file} is {other}; leave it out")


def _head(path: Path) -> bytes:
    try:
        with reading(path), open(path, "rb") as file:
            return file.read(max(map(len, TORCH_FILE)))
    except OSError as error:
        raise DataError(cannot_use(error, path)) from error


def gelu_for(checkpoint: "ForeignCheckpoint", named: GeluFlag) -> "GeluName | None":
    """The form of GELU of a checkpoint's model; None for a network without.

    Raises:
        UsageError: one is named for a network without.
    """
    if named == "auto":
        return checkpoint.gelu
    if checkpoint.gelu is None:
        raise UsageError(
            f"--gelu is {named}, and the network of {checkpoint.where} has no GELU; leave it out"
        )
    return named


def tokenizer_for(checkpoint: "ForeignCheckpoint", named: str | None) -> "Tokenizer | None":
    """The tokenizer of a checkpoint's model; None where it shall have none.

    Raises:
        UsageError: none is named, and the model's own can't be read.
        ModelError: the one named, or GPT-2's where none is, has another number of ids than the model.
    """
    from myna.model.exchange.foreign import is_padded_to
    from myna.text.tokenizer import Tokenizer

    if named == NO_TOKENIZER:
        return None
    if named is None and checkpoint.own_tokenizer is not None:
        raise UsageError(
            f"the tokenizer of {checkpoint.where} is in {checkpoint.own_tokenizer}; give --tokenizer a folder with its "
            f"tokenizer.json, or --tokenizer {NO_TOKENIZER} for the weights alone"
        )
    tokenizer = Tokenizer.gpt2() if named is None else Tokenizer.open(named)
    if not is_padded_to(checkpoint.n_vocab, tokenizer.n_vocab):
        raise ModelError(
            f"{checkpoint.where} has a vocabulary of {checkpoint.n_vocab:,}, and tokenizer {tokenizer.name} has "
            f"{tokenizer.n_vocab:,} ids; name the tokenizer that the model was trained with, or --tokenizer "
            f"{NO_TOKENIZER} for the weights alone"
        )
    return tokenizer
