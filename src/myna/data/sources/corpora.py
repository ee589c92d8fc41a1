"""Names lead to files: the table of named corpora, the hub, addresses, and paths on this machine.

    NAME[:PART]                   a line of the table `CORPORA`; PART is a part of a hub dataset
    hf:OWNER/NAME[:CONFIG]        any dataset of parquet or JSONL files on the hub
    https://..., s3://...         one file
    FILE, FOLDER, GLOB            .txt .md .jsonl .parquet, also with .gz or .zst; .warc .wet, also with .gz; text of
                                  any other name

A corpus is a list of files in a fixed order: `find_files` makes it.
"""

import difflib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from myna.data.sources.hub import list_files
from myna.data.sources.local import LeftOut, local_files
from myna.data.sources.published import PublishedFile
from myna.data.sources.source import SUFFIXES, Source, is_address, kind_of
from myna.errors import DataError

LOCAL_VAL_FRACTION = 0.1
WEB_VAL_FRACTION = 0.01


class NamedCorpus(Protocol):
    """What a line of the table is."""

    def files(self, part: str) -> list[Source]:
        """Its files in order. `part` is what follows the colon, "" for the default."""
        ...


@dataclass(frozen=True)
class Pydoc:
    """The documentation inside this Python. No network."""

    def files(self, part: str) -> list[Source]:
        """One file that stands for all of it."""
        return [Source(f"pydoc of Python {platform.python_version()}", "pydoc", "pydoc")]


@dataclass(frozen=True)
class PydocChat:
    """Questions about the functions inside this Python, answered by their docstrings. No network."""

    def files(self, part: str) -> list[Source]:
        """One file that stands for all of it."""
        return [Source(f"pydoc-chat of Python {platform.python_version()}", "pydoc-chat", "pydoc-chat")]


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub.

    Attributes:
        repository: OWNER/NAME.
        part: the configuration or folder to read when none is named; "" for the dataset's own default.
        aliases: our names for some parts.
        tokens: how many tokens a part has, as its authors count them: GPT-2's.
    """

    repository: str
    part: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)

    def files(self, part: str) -> list[Source]:
        """The training files. Raises DataError or DownloadError: see `list_files`."""
        return list_files(self.repository, self.aliases.get(part, part) or self.part)


# FineWeb's and FineWeb-Edu's samples (Penedo et al. 2024, arXiv:2406.17557, and the datasets' pages).
SAMPLES = {"sample-10BT": 10e9, "sample-100BT": 100e9, "sample-350BT": 350e9}

# To add a corpus, add a line here, and its name to the help text in commands/prepare.py and the table in docs/data.md.
CORPORA: dict[str, NamedCorpus] = {
    "pydoc": Pydoc(),
    "shakespeare": PublishedFile(
        "tinyshakespeare.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        n_bytes=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "fineweb-edu": HubDataset(
        "HuggingFaceFW/fineweb-edu", "sample-10BT", {"full": "data"}, {**SAMPLES, "full": 1.3e12}
    ),
    "fineweb": HubDataset(
        "HuggingFaceFW/fineweb", "sample-10BT", {"full": "data"}, {**SAMPLES, "full": 15e12}
    ),
    "openwebtext": HubDataset("Skylion007/openwebtext"),
    "openwebtext2": HubDataset("segyges/OpenWebText2"),  # one tar file of JSONL, 29 GB
    "c4": HubDataset("allenai/c4", "en"),
    "redpajama": HubDataset("togethercomputer/RedPajama-Data-1T-Sample"),  # the sample, 5 GB of JSONL
    "slimpajama": HubDataset("cerebras/SlimPajama-627B"),
    "wikipedia": HubDataset("wikimedia/wikipedia", "20231101.en"),
    # conversations
    "pydoc-chat": PydocChat(),
    "smoltalk": HubDataset("HuggingFaceTB/smoltalk", "all"),
    "ultrachat": HubDataset("HuggingFaceH4/ultrachat_200k"),
}


def find_files(specs: Sequence[str], say: Callable[[str], None] | None = None) -> list[Source]:
    """Lists the files that CORPUS arguments name, in order.

    Args:
        say: told in a line what was left out of folders and globs.
    Raises:
        DataError: an argument names nothing that can be read.
        DownloadError: a list of files or a small corpus could not be fetched.
    """
    if not specs:
        raise DataError(f"no corpus named; give one of {', '.join(CORPORA)}, or local files and folders")
    files: list[Source] = []
    left_out = LeftOut()
    for spec in specs:
        if not spec:
            raise DataError("a corpus is named by nothing (''); name files, folders or a corpus")
        files += _files_of(spec, left_out)
    if say is not None and left_out:
        say(f"left out: {left_out}")
    return files


def is_web(spec: str) -> bool:
    """Whether a spec names a corpus on the hub."""
    return isinstance(_named(spec)[0], HubDataset)


def tokens_of(spec: str) -> float | None:
    """How many of GPT-2's tokens a named corpus has; None where nobody has said.

    >>> tokens_of("fineweb-edu"), tokens_of("fineweb:sample-350BT"), tokens_of("my-notes")
    (10000000000.0, 350000000000.0, None)
    """
    corpus, part = _named(spec)
    return corpus.tokens.get(part or corpus.part) if isinstance(corpus, HubDataset) else None


def default_val_fraction(specs: Sequence[str]) -> float:
    """The share of documents for validation: 0.01 if all of it is web corpora, else 0.1."""
    return WEB_VAL_FRACTION if all(map(is_web, specs)) else LOCAL_VAL_FRACTION


def _named(spec: str) -> tuple[NamedCorpus | None, str]:
    """The corpus that a spec names, and the part of it; None for an address or a path."""
    if spec.startswith("hf:"):
        repository, _, part = spec.removeprefix("hf:").partition(":")
        # our names for the parts of a dataset hold for its address too; its default part there is the hub's
        ours = (c for c in CORPORA.values() if isinstance(c, HubDataset) and c.repository == repository)
        return HubDataset(repository, aliases={k: v for c in ours for k, v in c.aliases.items()}), part
    name, _, part = spec.partition(":")
    corpus = CORPORA.get(name)
    # only datasets on the hub have parts
    return (corpus if isinstance(corpus, HubDataset) or not part else None), part


def _files_of(spec: str, left_out: LeftOut) -> list[Source]:
    corpus, part = _named(spec)
    if corpus is not None:
        return corpus.files(part)
    if is_address(spec):
        kind = kind_of(spec.partition("?")[0])
        if kind is None:
            raise DataError(f"{spec}: the address must end in one of {SUFFIXES}")
        return [Source(spec, spec, *kind)]
    files = local_files(spec, left_out)
    if files is None:
        near = difflib.get_close_matches(spec, CORPORA, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the named ones are {', '.join(CORPORA)}"
        raise DataError(f"there is no corpus, file, folder or glob {spec!r}; {hint}")
    return files
