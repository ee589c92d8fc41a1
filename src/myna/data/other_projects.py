"""Other projects' token files, read as they are.

    build-nanogpt   *train*.npy, *val*.npy         NumPy arrays, one-dimensional, any integer type
    llm.c           *train*.bin, *val*.bin         256 int32: magic, version, count; then uint16 (or uint32) ids
    nanoGPT         train.bin, val.bin             uint16 ids, nothing else

None of them says which tokenizer made it, so it is named by whoever opens them. Ids outside its vocabulary are an
error when they are read.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from myna.data.split import SPLITS, Dataset, Shard, Split
from myna.errors import DataError

if TYPE_CHECKING:
    from myna.text.tokenizer import Tokenizer

LLMC_HEADER_BYTES = 1024
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


def _files(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        partial = path.with_name(path.name + ".partial")
        if partial.exists():
            raise DataError(
                f"{path} is not whole: {partial} is unfinished; run the same `myna prepare` again"
            )
        raise DataError(f"no dataset at {path}; make one with `myna prepare CORPUS --out {path}`")
    found = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".bin"))
    files = {name: [file for file in found if name in file.stem] for name in SPLITS}
    if not files["train"]:
        raise DataError(
            f"{path} is no dataset: it has neither dataset.json nor files named like *train*.npy or *train*.bin"
        )
    return files


def _npy_shard(path: Path) -> tuple[str, Shard]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
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


def _bin_shard(path: Path) -> tuple[str, Shard]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = (
            np.frombuffer(file.read(12), dtype="<i4")
            if size >= LLMC_HEADER_BYTES
            else np.zeros(3, dtype="<i4")
        )
    magics = {magic for magic, _ in LLMC_DTYPES}
    if int(header[0]) in magics:
        dtype = LLMC_DTYPES.get((int(header[0]), int(header[1])))
        if dtype is None:
            raise DataError(f"{path} is an llm.c file of version {int(header[1])}, which is not known here")
        return "llm.c", Shard(path, int(header[2]), LLMC_HEADER_BYTES, dtype)
    if size % 2:
        raise DataError(f"{path} has {size:,} bytes, an odd number: no file of uint16 ids")
    return "nanoGPT", Shard(path, size // 2, 0, np.dtype("<u2"))
