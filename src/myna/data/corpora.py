"""Names lead to files: named corpora, the hub, addresses, and local files, folders and globs.

    pydoc          the documentation inside this Python                         no network
    shakespeare    karpathy/char-rnn's input.txt, 1.1 MB
    fineweb-edu    HuggingFaceFW/fineweb-edu; sample-10BT, or fineweb-edu:sample-100BT, fineweb-edu:full
    fineweb        HuggingFaceFW/fineweb; the same names
    openwebtext    Skylion007/openwebtext
    slimpajama     cerebras/SlimPajama-627B
    wikipedia      wikimedia/wikipedia; 20231101.en, or wikipedia:20231101.de and so on
    hf:OWNER/NAME[:CONFIG]        any dataset of parquet or JSONL files on the hub
    https://..., s3://...         one file
    FILE, FOLDER, GLOB            .txt .md .jsonl .parquet, also with .gz or .zst

A corpus is a list of files in a fixed order; `pieces.py` cuts them into work, `reading.py` gets the documents out.
"""

import difflib
import glob
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from myna.data.hub import list_files
from myna.data.sources import SUFFIXES, SourceFile, is_address, kind_of
from myna.errors import DataError
from myna.files import cache_folder, download, sha256_file

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_BYTES = 1_115_394

# name: (repository, the part of it without a suffix, where each part lies)
HUB_CORPORA = {
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
    "fineweb": ("HuggingFaceFW/fineweb", "sample-10BT"),
    "openwebtext": ("Skylion007/openwebtext", None),
    "slimpajama": ("cerebras/SlimPajama-627B", None),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
}
NAMES = ("pydoc", "shakespeare", *HUB_CORPORA)
LOCAL_VAL_FRACTION = 0.1
WEB_VAL_FRACTION = 0.01


@dataclass(frozen=True)
class Corpus:
    """The files that some CORPUS arguments name, in order.

    Attributes:
        specs: the arguments as given.
    """

    specs: tuple[str, ...]
    files: tuple[SourceFile, ...]


def find_corpus(specs: Sequence[str]) -> Corpus:
    """Lists the files that CORPUS arguments name.

    Raises:
        DataError: one of them names nothing that can be read.
        DownloadError: a list of files or a small corpus could not be fetched.
    """
    if not specs:
        raise DataError(f"no corpus named; give one of {', '.join(NAMES)}, or local files and folders")
    files: list[SourceFile] = []
    for spec in specs:
        if not spec:
            raise DataError("a corpus is named by nothing (''); name files, folders or a corpus")
        files.extend(_hub_files(spec) if is_web(spec) else _files_of(spec))
    return Corpus(tuple(specs), tuple(files))


def is_web(spec: str) -> bool:
    """Whether a spec names a corpus on the hub."""
    return spec.startswith("hf:") or spec.partition(":")[0] in HUB_CORPORA


def default_val_fraction(specs: Sequence[str]) -> float:
    """The share of documents for validation: 0.01 if all of it is web corpora, else 0.1."""
    return WEB_VAL_FRACTION if all(map(is_web, specs)) else LOCAL_VAL_FRACTION


def _files_of(spec: str) -> list[SourceFile]:
    if spec == "pydoc":
        return [SourceFile(f"pydoc of Python {platform.python_version()}", "pydoc", "pydoc")]
    if spec == "shakespeare":
        path = shakespeare_file()
        return [SourceFile("tinyshakespeare.txt", str(path), "text", n_bytes=path.stat().st_size)]
    if is_address(spec):
        kind = kind_of(spec.partition("?")[0])
        if kind is None:
            raise DataError(f"{spec}: the address must end in one of {SUFFIXES}")
        return [SourceFile(spec, spec, *kind)]
    return list(_local_files(spec))


def _hub_files(spec: str) -> list[SourceFile]:
    name, _, part = spec.removeprefix("hf:").partition(":")
    if not spec.startswith("hf:"):
        name, default = HUB_CORPORA[name]
        part = part or default or ""
    return list_files(name, part)


def _local_files(spec: str) -> Iterator[SourceFile]:
    path = Path(spec).expanduser()
    if path.is_file():
        paths = [path]
        if kind_of(path.name) is None:
            raise DataError(f"{spec}: cannot tell what it holds; its name must end in one of {SUFFIXES}")
    elif path.is_dir():
        inside = (file for file in path.rglob("*") if kind_of(file.name) and file.is_file())
        paths = [file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)]
        if not paths:
            raise DataError(f"the folder {spec} holds no file that ends in one of {SUFFIXES}")
    elif path.exists():
        raise DataError(f"{spec} is no regular file (a device or a pipe?); copy its text into a file")
    else:
        paths = [Path(match) for match in glob.glob(str(path), recursive=True)]
        paths = [match for match in paths if match.is_file() and kind_of(match.name)]
        if not paths:
            near = difflib.get_close_matches(spec, NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the named ones are {', '.join(NAMES)}"
            raise DataError(f"there is no corpus, file, folder or glob {spec!r}; {hint}")
    for file in sorted(paths, key=lambda file: file.as_posix()):
        kind = kind_of(file.name)
        assert kind is not None
        yield SourceFile(file.as_posix(), str(file), *kind, n_bytes=file.stat().st_size)


def shakespeare_file() -> Path:
    """The text of `shakespeare`, verified, in the user's cache; fetched the first time.

    Raises:
        DownloadError: it can't be fetched, or is not the published file.
    """
    path = cache_folder() / "corpora" / "tinyshakespeare.txt"
    if (
        not path.is_file()
        or path.stat().st_size != SHAKESPEARE_BYTES
        or sha256_file(path) != SHAKESPEARE_SHA256
    ):
        download(SHAKESPEARE_URL, path, sha256=SHAKESPEARE_SHA256)
    return path
