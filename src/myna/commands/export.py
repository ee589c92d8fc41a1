"""`myna export`: a model as files for other programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.model_flags import ModelFlags, open_on_cpu
from myna.errors import ModelError, OutputError


@dataclass(frozen=True)
class Export:
    """Write a model's weights and its tokenizer as files that other programs load."""

    model: Annotated[ModelFlags, tyro.conf.arg(name="")]
    to: Literal["hugging-face"]
    """hugging-face: a folder that transformers loads directly (config.json, model.safetensors, tokenizer.json)."""
    out: Path
    """The folder to write: new, or empty."""


def main(args: Sequence[str]) -> None:
    """Runs `myna export`."""
    refuse_empty(args)
    call = parse(Export, args, command="export")
    check_free(call.out)
    opened, tokenizer = open_on_cpu(call.model)
    network = opened.model
    if network.layout.exports_to is None:
        raise ModelError(
            f"{opened.path}: no other program has the network {type(network).__name__}, so it has no exporter; its "
            "checkpoints load with Myna only"
        )
    from myna.files import atomic_directory
    from myna.model.weights import save_network

    if call.out.exists():
        call.out.rmdir()  # it is empty
    with atomic_directory(call.out) as folder:
        save_network(folder, network, tokenizer)
    print(
        f"{call.out}: {network.n_parameters():,} parameters in {network.layout.exports_to} layout, from {opened.path}"
    )


def check_free(out: Path) -> None:
    """
    Raises:
        OutputError: there is something in that place.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise OutputError(f"--out {out} holds something else; give a new or an empty folder")
