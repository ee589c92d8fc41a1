"""Models to and from other programs' files. Two tables: formats that are written, and checkpoints that are read.

To add a format: write its file, with `write(place, network, tokenizer, dtype)`, and its line in `EXPORTERS`. It refuses
what its format can't express, before it writes.

To add a project's checkpoints: write its file, with `read(content, path)`, and its line in `IMPORTERS`. It gives a
`ForeignCheckpoint`, or None for the file of another project; and it refuses what the network can't compute, by name.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from myna.model.exchange.foreign import ForeignCheckpoint
    from myna.model.network import Network
    from myna.text.tokenizer import Tokenizer

DtypeName = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Exporter:
    """A line of the table.

    Attributes:
        write: "module:function", called as (place, network, tokenizer, dtype).
        what: for people.
        dtypes: types of the weights that it can write.
        file: the name of the file that it writes, which is then the place; None where the place is a folder.
        package: what it needs besides Myna; None for nothing.
        extra: the extra that brings the package.
    """

    write: str
    what: str
    dtypes: tuple[DtypeName, ...] = ("fp32",)
    file: str | None = None
    package: str | None = None
    extra: str | None = None

    def load(self) -> "Callable[[Path, Network, Tokenizer, DtypeName], None]":
        """The function itself."""
        return _loaded(self.write)


@dataclass(frozen=True)
class Importer:
    """A line of the table.

    Attributes:
        read: "module:function", called as (what torch.save was given, the file's path).
        what: for people, who gave another file.
    """

    read: str
    what: str

    def load(self) -> "Callable[[Any, Path], ForeignCheckpoint | None]":
        """The function itself."""
        return _loaded(self.read)


def _loaded(named: str) -> Any:
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)


EXPORTERS: dict[str, Exporter] = {
    "hugging-face": Exporter(
        "myna.model.exchange.hugging_face:write",
        "a folder that transformers loads directly (config.json, model.safetensors, tokenizer.json)",
    ),
    "gguf": Exporter(
        "myna.model.exchange.gguf_file:write",
        "one file for llama.cpp and the programs around it",
        dtypes=("fp32", "fp16", "bf16"),
        file="model.gguf",
        package="gguf",
        extra="gguf",
    ),
    "llmc": Exporter(
        "myna.model.exchange.llmc:write",
        "llm.c's model.bin and gpt2_tokenizer.bin",
        dtypes=("fp32", "bf16"),
    ),
}

IMPORTERS = (
    Importer(
        "myna.model.exchange.nanogpt:read",
        "a checkpoint of build-nanogpt (a dict with model and config) or of nanoGPT (a dict with model and model_args)",
    ),
    Importer(
        "myna.model.exchange.nanochat:read",
        "one of nanochat (model_NNNNNN.pt, with meta_NNNNNN.json beside it)",
    ),
)
