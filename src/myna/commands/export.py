"""`myna export`: a model as files for other programs."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.model_flags import ModelFlags, open_on_cpu
from myna.commands.out import check_free, new_file, new_folder
from myna.errors import UsageError, unknown_name
from myna.files import sync_file
from myna.model.exchange import EXPORTERS, DtypeName, Exporter

FORMATS = "; ".join(f"{name}: {exporter.what}" for name, exporter in EXPORTERS.items())


@dataclass(frozen=True)
class Export:
    """Write a model's weights and its tokenizer as files that other programs load."""

    model: Annotated[ModelFlags, tyro.conf.arg(name="")]
    to: Annotated[str, tyro.conf.arg(metavar="FORMAT", help=f"The format. {FORMATS}.")]
    out: Path
    """The folder to write: new, or empty. For gguf, a name that ends in .gguf is the file itself."""
    dtype: DtypeName = "fp32"
    """The type of the weights: fp32 always; fp16 and bf16 for gguf; bf16 for llmc."""


def main(args: Sequence[str]) -> None:
    """Runs `myna export`."""
    refuse_empty(args)
    call = parse(Export, args, command="export")
    exporter = checked_exporter(call.to, call.dtype)
    one_file = exporter.file is not None and call.out.suffix == Path(exporter.file).suffix
    check_free(call.out, "a new name" if one_file else "a new or an empty folder")
    opened, tokenizer = open_on_cpu(call.model)
    write = exporter.load()
    if one_file:
        with new_file(call.out) as place:
            write(place, opened.model, tokenizer, call.dtype)
    else:
        with new_folder(call.out) as folder:
            place = folder / exporter.file if exporter.file else folder
            write(place, opened.model, tokenizer, call.dtype)
            if exporter.file:
                sync_file(place)
    print(
        f"{call.out}: {opened.model.n_parameters():,} parameters for {call.to}, {call.dtype}, from {opened.path}"
    )


def checked_exporter(name: str, dtype: DtypeName) -> Exporter:
    """The format of that name.

    Raises:
        UsageError: there is none, it has no such type, or what it needs is not installed.
    """
    if name not in EXPORTERS:
        raise unknown_name("format", name, list(EXPORTERS))
    exporter = EXPORTERS[name]
    if dtype not in exporter.dtypes:
        raise UsageError(f"--dtype {dtype} is no type of {name}; give {' or '.join(exporter.dtypes)}")
    if exporter.package and importlib.util.find_spec(exporter.package) is None:
        raise UsageError(
            f"--to {name} needs {exporter.package}; install it: pip install 'myna[{exporter.extra}]'"
        )
    return exporter
