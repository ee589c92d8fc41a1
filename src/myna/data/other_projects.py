"""Other projects' token files, read as they are.

    build-nanogpt   *train*.npy, *val*.npy         NumPy arrays, one-dimensional, any integer type
    llm.c           *train*.bin, *val*.bin         256 int32: magic, version, count; then uint16 (or uint32) ids
    nanoGPT         train.bin, val.bin             uint16 ids, nothing else

None of them says which tokenizer made it, so it is named by whoever opens them. Ids outside its vocabulary are an
error when they are read. nanoGPT's files say nothing at all: `_looks_otherwise` asks whether uint16 ids look so.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from myna.data.split import SPLITS, Dataset, Shard, Split
from myna.errors import DataError
from myna.paths import quoted

if TYPE_CHECKING:
    from myna.text.tokenizer import Tokenizer

LLMC_HEADER_BYTES = 1024
HEADER_FIELDS_BYTES = 64
SAMPLE_IDS = 1 << 20
LEAST_SAMPLE_IDS = 128
LEAST_PADDED_IDS = 16
MOST_LOW_BYTES = 200
REMARK_IDS = 1 << 20
REMARK_STRETCHES = 64
LEAST_REMARK_IDS = 1000
LLMC_DTYPES: dict[tuple[int, int], np.dtype] = {
    (20240520, 1): np.dtype("<u2"),
    (20240801, 7): np.dtype("<u4"),
}


def open_other_project(path: Path, tokenizer: "Tokenizer | None") -> Dataset:
    """Opens a folder in one of the formats above; the file names say `train` and `val`.

    Raises:
        DataError: nothing there that can be read, or no tokenizer named.
    """
    files = _files(path)
    if tokenizer is None:
        raise DataError(f"{path} does not say which tokenizer made it; name it with --tokenizer")
    formats: set[str] = set()
    splits = {}
    for name in SPLITS:
        shards = []
        for file in files[name]:
            kind, shard = _npy_shard(file) if file.suffix == ".npy" else _bin_shard(file)
            shard.check_size()
            formats.add(kind)
            shards.append(shard)
        splits[name] = Split(
            f"{path} ({name})", shards, tokenizer.n_vocab, eot=tokenizer.eot, id_bytes=tokenizer.id_bytes()
        )
    if len(formats) != 1:
        raise DataError(f"{path} mixes formats ({', '.join(sorted(formats))}); keep one of them in a folder")
    info = {
        "format": formats.pop(),
        "tokenizer": tokenizer.sha256,
        "vocab_size": tokenizer.n_vocab,
        "source": [str(path)],
        **{
            name: {
                "tokens": splits[name].n_tokens,
                "shards": [{"file": s.path.name, "tokens": s.tokens} for s in splits[name].shards],
            }
            for name in SPLITS
        },
    }
    return Dataset(path, info, tokenizer.n_vocab, tokenizer.sha256, None, splits["train"], splits["val"])


def remark_on(dataset: Dataset) -> str | None:
    """A line where a dataset's ids look as if another tokenizer made them than the one named; None where they don't.

    All of at least `LEAST_REMARK_IDS` sampled training ids are below a hundredth of the vocabulary, or, where nanoGPT's
    meta.pkl says that it is a character-level dataset, below half of it. Text in the vocabulary's own ids is never so:
    about half of GPT-2's ids of English are above that hundredth. The pickle is not opened.

    Raises:
        DataError: an id is outside the vocabulary.
    """
    train = dataset.train
    n = min(train.n_tokens, REMARK_IDS // REMARK_STRETCHES)
    if dataset.tokenizer_path is not None or train.n_tokens < LEAST_REMARK_IDS:
        return None
    last = train.n_tokens - n
    starts = {last * i // (REMARK_STRETCHES - 1) for i in range(REMARK_STRETCHES)}
    largest = max(int(train.read(start, n).max()) for start in starts)
    meta = dataset.path / "meta.pkl"
    if largest >= dataset.vocab_size // (2 if meta.exists() else 100):
        return None
    return (
        f"{dataset.path}: the largest id found in it is {largest}, far from the tokenizer's {dataset.vocab_size:,} ids"
        + f", and {meta.name} says that it has a vocabulary of its own" * meta.exists()
        + "; name the tokenizer that made it, or the text will be another"
    )


def _files(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        partial = path.with_name(path.name + ".partial")
        if partial.exists():
            raise DataError(
                f"{path} is not whole: {partial} is unfinished; run the same `myna prepare` again"
            )
        if path.with_name(path.name + ".parts").exists():
            raise DataError(
                f"{path} is still in parts; make all of them, then run `myna data join {quoted(path)}`"
            )
        raise DataError(f"no dataset at {path}; make one with `myna prepare CORPUS --out {quoted(path)}`")
    try:
        found = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".bin"))
    except OSError as error:
        raise DataError(f"cannot read the folder {path}: {error.strerror}; see who may read it") from error
    files: dict[str, list[Path]] = {name: [] for name in SPLITS}
    for file in found:
        if split := _split_by_name(file):
            files[split].append(file)
    if not files["train"]:
        raise DataError(
            f"{path} is no dataset: it has neither dataset.json nor files named like *train*.npy or *train*.bin; "
            "give a folder that `myna prepare` made, or one that holds such files"
        )
    return files


def _split_by_name(file: Path) -> str | None:
    """The split that a file's name says; None where it says none, and the file is left alone.

    Where both words are in the name, the one that stands by itself counts.

    >>> _split_by_name(Path("edufineweb_val_000000.npy")), _split_by_name(Path("retrieval_train_01.npy"))
    ('val', 'train')

    Raises:
        DataError: it says both.
    """
    said = [name for name in SPLITS if name in file.stem]
    if len(said) > 1:
        said = [name for name in said if name in re.split(r"[^a-z]+", file.stem)]
        if len(said) != 1:
            raise DataError(
                f"{file}: does its name say train or val? It has both; rename it so that it has one of them"
            )
    return said[0] if said else None


def _npy_shard(path: Path) -> tuple[str, Shard]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path} is no NumPy array of ids ({error}); it is damaged or something else"
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds a {array.ndim}-dimensional {array.dtype} array; ids are one-dimensional integers"
        )
    if array.dtype == np.uint64:
        raise DataError(f"{path} holds uint64, which no vocabulary needs; save it as uint16 or uint32")
    return "build-nanogpt", Shard(path, len(array), int(array.offset), array.dtype)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read {path}: {error.strerror}; see who may read it")


def _bin_shard(path: Path) -> tuple[str, Shard]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            sample = file.read(2 * SAMPLE_IDS)
    except OSError as error:
        raise _unreadable(path, error) from error
    magic, version, count = np.frombuffer(sample[:12].ljust(12, b"\0"), dtype="<i4").tolist()
    if size >= LLMC_HEADER_BYTES and magic in {known for known, _ in LLMC_DTYPES}:
        dtype = LLMC_DTYPES.get((magic, version))
        if dtype is None:
            raise DataError(f"{path} is an llm.c file of version {version}, which is not known here")
        return "llm.c", Shard(path, count, LLMC_HEADER_BYTES, dtype)
    if size % 2:
        raise DataError(f"{path} has {size:,} bytes, an odd number: no file of uint16 ids")
    if why := _looks_otherwise(sample):
        raise DataError(
            f"{path} is no file of uint16 ids: {why}; save the ids with numpy.save as .npy, which says what they are"
        )
    return "nanoGPT", Shard(path, size // 2, 0, np.dtype("<u2"))


def _looks_otherwise(sample: bytes) -> str | None:
    """Why the beginning of a file without a known header can't be little-endian uint16 ids; None where it can be.

    - The low byte of every second id is below 4, and that of some others is not. So look the upper halves of uint32
      ids up to 262,143, three quarters of int64 ids, and big-endian ids below 1,024. In uint16 ids of text the low
      bytes vary. Where they vary least, in a character-level file, a space or newline has such an id about one time
      in five: chance makes 64 of them in a row once in 10^44 files, and fewer ids are not judged.
    - Of a shorter file: it has zeros and nothing else in every second place, or in three of four, and none elsewhere.
    - At most 200 low bytes stand for four times as many ids. So look single bytes, two of which are taken for an
      id, and big-endian ids. Low bytes of 800 different uint16 ids take 245 values, give or take 3; of 128 ids 101.
    - 960 zero bytes behind the first 64, and others after them: a header.

    >>> ids = np.arange(1000, 2000)
    >>> [_looks_otherwise(ids.astype(dtype).tobytes()) is None for dtype in ("<u2", "<u4", "<i8", ">u4")]
    [True, False, False, False]
    """
    ids = np.frombuffer(sample[: len(sample) // 4 * 4], dtype="<u2").reshape(-1, 2)
    low = (ids & 0xFF).max(axis=0, initial=0)
    if ids.size >= LEAST_SAMPLE_IDS and low.min() < 4 and ids.max() >= 4:
        return f"the low byte of every second of its first {ids.size:,} is below 4, as in uint32 or big-endian ids"
    if ids.size < LEAST_SAMPLE_IDS and (width := _padded_to(ids.ravel())):
        return f"of every {width} of its first {ids.size:,} only one is not 0, as in uint32 or int64 ids"
    seen = np.flatnonzero(np.bincount(ids.ravel(), minlength=1))
    n_low = np.unique(seen & 0xFF).size
    if ids.size >= LEAST_SAMPLE_IDS and 16 <= 4 * n_low <= min(len(seen), 4 * MOST_LOW_BYTES):
        return f"the low bytes of {len(seen):,} different ones take only {n_low} values, as in uint8 or big-endian ids"
    header = sample[HEADER_FIELDS_BYTES:LLMC_HEADER_BYTES]
    if not header.strip(b"\0") and sample[LLMC_HEADER_BYTES:].strip(b"\0"):
        return "it begins with a header that is not known here"
    return None


def _padded_to(ids: np.ndarray) -> int | None:
    """How many uint16 make one id, where all but one of them are always 0; None where they are not so, or too few."""
    for width in (2, 4):
        rows = ids[: len(ids) // width * width].reshape(-1, width)
        filled = rows.all(axis=0)
        if (
            rows.size >= LEAST_PADDED_IDS
            and filled.sum() == 1
            and rows.any(axis=0).sum() == 1
            and len(np.unique(rows[:, filled])) >= width
        ):
            return width
    return None
