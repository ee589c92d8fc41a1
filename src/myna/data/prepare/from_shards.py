"""Other projects' token files become a dataset of ours: hashed, and checked id by id against the vocabulary."""

from pathlib import Path
from typing import Any

from myna.data.other_projects import remark_on
from myna.data.prepare.shard_writer import ShardWriter, require_shard_tokens
from myna.data.prepare.work_folder import already_done, locked_work_folder
from myna.data.shards import FORMAT, id_dtype, open_dataset
from myna.data.split import Dataset, Split
from myna.data.verify import hash_files
from myna.errors import DataError
from myna.files import json_bytes, write_synced
from myna.progress import speak
from myna.text.tokenizer import Tokenizer


def convert_shards(
    source: Path, out: Path, tokenizer: Tokenizer, shard_tokens: int, quiet: bool = True
) -> Dataset:
    """Rewrites a folder of token files as shards of ours. The ids and their order stay as they are.

    A document is counted for each end-of-text id. nanoGPT's files end documents with it rather than begin them; as
    one stream, read as a ring, that is the same but for its first and last document.

    Args:
        source: what `open_dataset` reads.
        tokenizer: the one it was made with.
        shard_tokens: ids a file.
        quiet: no word on stdout about ids that look as if another tokenizer made them.
    Raises:
        DataError: it can't be read, or holds an id outside the vocabulary. UsageError: no ids a file.
        OutputError: `out` can't be written, or holds something else.
    """
    require_shard_tokens(shard_tokens)
    dataset = open_dataset(source, verify=True, tokenizer=tokenizer)
    paths = [shard.path for split in (dataset.train, dataset.val) for shard in split.shards]
    hashes = hash_files(paths)
    files = [
        {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256} for path, sha256 in hashes.items()
    ]
    call = {
        "from_shards": str(source),
        "tokenizer": tokenizer.sha256,
        "shard_tokens": shard_tokens,
        "files": files,
    }
    if already_done(out, call):
        return open_dataset(out, verify=False, tokenizer=tokenizer)
    if dataset.train.n_tokens == 0:
        raise DataError(f"{source} has no training ids; nothing was converted")
    if not tokenizer.is_exact:
        raise DataError(
            f"{source}: the tokenizer {tokenizer.name} changes text, so its ids don't say how many bytes the text had; "
            "prepare the text itself instead of these ids"
        )
    if not quiet and (remark := remark_on(dataset)):
        speak(remark)
    with locked_work_folder(out) as work:
        work.begin(call)
        write_synced(work.path / "tokenizer.json", tokenizer.to_json())
        records = {
            name: _copy(work.path, name, split, tokenizer, shard_tokens)
            for name, split in (("train", dataset.train), ("val", dataset.val))
        }
        for path, sha256 in hash_files(paths).items():
            if sha256 != hashes[path]:
                raise DataError(f"{path} was changed while it was read; run the same command again")
        info = {
            "format": FORMAT,
            "tokenizer": tokenizer.sha256,
            "vocab_size": tokenizer.n_vocab,
            "dtype": id_dtype(tokenizer.n_vocab).name,
            "source": {key: value for key, value in call.items() if key != "tokenizer"},
            **records,
        }
        write_synced(work.path / "dataset.json", json_bytes(info))
        work.publish(out)
    return open_dataset(out, verify=False, tokenizer=tokenizer)


def _copy(folder: Path, name: str, split: Split, tokenizer: Tokenizer, shard_tokens: int) -> dict[str, Any]:
    """Writes one split's shards in one pass, and returns its part of dataset.json."""
    dtype, id_bytes = id_dtype(tokenizer.n_vocab), tokenizer.id_bytes()
    assert id_bytes is not None
    writer = ShardWriter(folder, name, dtype, shard_tokens, {})
    documents = n_bytes = 0
    try:
        for ids in split.scan():
            writer.write(ids.astype(dtype).tobytes())
            documents += int((ids == tokenizer.eot).sum())
            n_bytes += int(id_bytes[ids].sum())
        writer.finish()
    finally:
        writer.close()
    return {"documents": documents, "bytes": n_bytes, "tokens": writer.tokens, "shards": writer.shards}
