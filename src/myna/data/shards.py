"""The shard format: opens a dataset and checks it against its hashes.

    DIR/dataset.json         what was made, from what, and the SHA-256 of each file
    DIR/tokenizer.json       what turns the ids back into text
    DIR/train_000000.npy     one-dimensional little-endian uint16 (uint32 for a large vocabulary)
    DIR/val_000000.npy

A split's shards are one stream; each document in it begins with the end-of-text id. A dataset of conversations has a
second file beside each shard, train_000000.scored.npy: one byte for each id, 1 if the id is scored (see `text.chat`).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myna.data.other_projects import open_other_project
from myna.data.split import SCORED_DTYPE, SPLITS, Dataset, Shard, Split
from myna.data.verify import hash_files
from myna.errors import DataError
from myna.files import sha256_file
from myna.parsing import field, parse_json
from myna.paths import cannot_use
from myna.text.tokenizer import Tokenizer

FORMAT = "myna-shards-1"
NPY_HEADER_BYTES = 128


def id_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned little-endian type that holds every id: uint16 up to 65,536 of them, else uint32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def npy_header(dtype: np.dtype, tokens: int) -> bytes:
    """The header of a one-dimensional .npy file, always 128 bytes, so that the ids can be written first.

    NumPy's own header is not used, since its padding differs between versions: the same ids must give the same bytes.
    """
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({tokens},), }}"
    return (
        b"\x93NUMPY\x01\x00"
        + (NPY_HEADER_BYTES - 10).to_bytes(2, "little")
        + f"{text:<117}\n".encode("ascii")
    )


def open_dataset(
    path: Path | str,
    verify: bool = True,
    tokenizer: Tokenizer | None = None,
    splits: Collection[str] = SPLITS,
) -> Dataset:
    """Opens a folder of shards: ours, or build-nanogpt's, llm.c's and nanoGPT's as they are.

    Args:
        verify: hash the files in parallel, and compare with dataset.json. A file that was verified before is not read
            again if its size, times and inode are unchanged.
        tokenizer: the tokenizer that must have made the dataset. One that only has more special tokens is accepted,
            too; any other is refused. The files of other projects don't name their tokenizer, so give it for these.
        splits: those that will be read. The files of the others may be missing.
    Raises:
        DataError: no dataset, a damaged one, or one made with another tokenizer.
    """
    path = Path(path)
    try:
        is_ours = (path / "dataset.json").is_file()
    except OSError as error:
        raise DataError(f"cannot read the folder {path}: {error.strerror}; see who may read it") from error
    if not is_ours:
        return open_other_project(path, tokenizer)
    dataset = _read_ours(path)
    if tokenizer is not None:
        _require_tokenizer(dataset, tokenizer)
    shards = [shard for stream in dataset.streams(splits) for shard in stream.shards]
    for shard in shards:
        shard.check_size()
    if verify:
        verify_shards(shards)
    return dataset


def _require_tokenizer(dataset: Dataset, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer that gives other ids than the dataset's own.

    Raises:
        DataError: the ids differ, or vocab_size in dataset.json is not that of the dataset's own tokenizer.
    """
    if tokenizer.sha256 != dataset.tokenizer_sha256:
        own = Tokenizer.load(dataset.path / "tokenizer.json")
        if not tokenizer.extends(own):
            raise DataError(
                f"{dataset.path} was made with another tokenizer than {tokenizer.name}; "
                "use the dataset's own (--tokenizer from-data) or prepare it again"
            )
        tokenizer = own
    if tokenizer.n_vocab != dataset.vocab_size:
        raise DataError(
            f"{dataset.path / 'dataset.json'} says vocab_size {dataset.vocab_size}, but the tokenizer that made the "
            f"dataset has {tokenizer.n_vocab} ids; dataset.json was changed by hand: put {tokenizer.n_vocab} back, or "
            "prepare the dataset again"
        )


def verify_shards(shards: Sequence[Shard], fresh: bool = False) -> None:
    """Hashes shards and compares with dataset.json. `fresh` reads every file again, even if it was verified before.

    Raises:
        DataError: a shard is not what was prepared.
    """
    found = hash_files([shard.path for shard in shards if shard.sha256], fresh=fresh)
    for shard in shards:
        if shard.sha256 and found[shard.path] != shard.sha256:
            raise DataError(
                f"{shard.path} is not the file that was prepared (its SHA-256 differs from dataset.json); "
                "remove the dataset and prepare it again"
            )


def _read_ours(path: Path) -> Dataset:
    """Reads dataset.json; checks its form and the tokenizer's hash. It does not check the hashes of the shards."""
    place = path / "dataset.json"
    try:
        info = parse_json(place.read_bytes())
        if (written := field(info, "format", str)) != FORMAT:
            raise DataError(
                f"{place} has format {written!r}; this version reads {FORMAT!r}, prepare it again"
            )
        vocab_size, tokenizer_sha256 = field(info, "vocab_size", int), field(info, "tokenizer", str)
        if "source" not in info:  # which is shown whatever it is
            raise ValueError("its field source is missing")
        splits = {name: _split_of(path, name, info, vocab_size) for name in SPLITS}
        tokenizer_path = path / "tokenizer.json"
        if sha256_file(tokenizer_path) != tokenizer_sha256:
            raise DataError(f"{tokenizer_path} is not the tokenizer that made this dataset; prepare it again")
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} is not there; put it back, or prepare the dataset again"
        ) from error
    except OSError as error:
        raise DataError(cannot_use(error)) from error
    except ValueError as error:
        raise DataError(f"{place} is damaged ({error}); prepare the dataset again") from error
    return Dataset(path, info, vocab_size, tokenizer_sha256, tokenizer_path, splits["train"], splits["val"])


def _split_of(path: Path, name: str, info: Mapping[str, Any], vocab_size: int) -> Split:
    dtype, stated = id_dtype(vocab_size), field(info, "dtype", str)
    if stated != dtype.name:
        raise ValueError(f"its field dtype is {stated!r}, and {vocab_size:,} ids need {dtype.name!r}")
    about = field(info, name, dict)
    listed, of = field(about, "shards", list, name), f"{name}.shards"
    shards = [_shard_of(path, entry, field(entry, "tokens", int, of), dtype, of) for entry in listed]
    scored = None
    if any("scored" in entry for entry in listed):
        masks = [
            _shard_of(path, field(entry, "scored", dict, of), shard.tokens, SCORED_DTYPE, f"{of}.scored")
            for entry, shard in zip(listed, shards, strict=True)
        ]
        scored = Split(f"{path} ({name}, scored)", masks, 2)
    documents, n_bytes, tokens = (field(about, key, int, name) for key in ("documents", "bytes", "tokens"))
    split = Split(f"{path} ({name})", shards, vocab_size, documents, n_bytes, scored=scored)
    if split.n_tokens != tokens:
        raise ValueError(f"its field {name}.tokens is {tokens:,}, and the shards have {split.n_tokens:,}")
    return split


def _shard_of(path: Path, entry: Any, tokens: int, dtype: np.dtype, of: str) -> Shard:
    """A file that dataset.json lists; `of` is where it does so."""
    name, sha256 = Path(field(entry, "file", str, of)).name, field(entry, "sha256", str, of)
    return Shard(path / name, tokens, NPY_HEADER_BYTES, dtype, sha256)
