"""Our datasets against the way reproductions of GPT-2 are usually prepared: tiktoken, one document after the other."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiktoken

from myna.data.prepare import prepare
from myna.data.sources import cut
from myna.data.sources.documents import documents
from myna.data.split import Shard, Split
from myna.text.tokenizer import Tokenizer

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    gpt2 = Tokenizer.gpt2()
    ranks = {gpt2.token_bytes(rank): rank for rank in range(gpt2.eot)}
    return tiktoken.Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": gpt2.eot}
    )


def usual_ids(encoding: tiktoken.Encoding, texts: list[str]) -> np.ndarray:
    """As build-nanogpt's fineweb.py makes them."""
    return np.array([i for text in texts for i in (encoding.eot_token, *encoding.encode_ordinary(text))])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_stream_is_the_usual_one(
    tmp_path: Path, encoding: tiktoken.Encoding, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "PART_BYTES", 200_000)
    texts = list(documents(["pydoc"]))[::5]
    texts += ["日本語 naïve 🙂 <|endoftext|>", " " * 5000 + "x", "\r\n\t\n x \n", "'s're", "١٢٣४५६"]
    path = tmp_path / f"texts.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=50)
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = prepare([str(path)], tmp_path / "data", Tokenizer.gpt2(), val_fraction=0, workers=2)
    assert np.array_equal(made.train.read(0, made.train.n_tokens), usual_ids(encoding, texts))
    assert np.array_equal(np.load(made.train.shards[0].path), usual_ids(encoding, texts))


def test_one_large_text_cut_in_pieces_has_the_ids_of_the_whole(
    tmp_path: Path, encoding: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(documents(["pydoc"]))[:300_000]
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    for size in (997, 65_536):
        monkeypatch.setattr(cut, "PART_BYTES", size)
        made = prepare([str(tmp_path / "a.txt")], tmp_path / str(size), Tokenizer.gpt2(), val_fraction=0)
        assert np.array_equal(made.train.read(0, made.train.n_tokens), usual_ids(encoding, [text]))


def test_numpys_own_files_are_read(tmp_path: Path) -> None:
    """A shard read by our reader is what NumPy reads from the same file, whoever wrote its header."""
    ids = np.arange(5000, dtype=np.uint16)
    np.save(tmp_path / "x_train.npy", ids)
    array = np.load(tmp_path / "x_train.npy", mmap_mode="r")
    split = Split("x", [Shard(tmp_path / "x_train.npy", len(array), array.offset, array.dtype)], 50257)
    assert np.array_equal(split.read(123, 456), ids[123:579])
