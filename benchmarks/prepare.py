"""Preparing a corpus: `myna prepare` against the usual way, on the same parquet files, one after the other.

The usual way is a multiprocessing pool over documents, tiktoken, and NumPy shards. The text is what lies on this
machine (sources, headers, documentation), each file once. Both must give the same ids.

    python benchmarks/prepare.py [--megabytes 480] [--workers 2]
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SUFFIXES = {".py", ".md", ".txt", ".rst", ".h", ".html", ".pm"}
SHARD_TOKENS = 100_000_000


def collect(megabytes: int) -> list[str]:
    """Distinct text files of this machine, in a fixed order, up to a size."""
    seen: set[bytes] = set()
    texts: list[str] = []
    size = 0
    for root in (sys.prefix, sys.base_prefix, "/usr/lib", "/usr/share", "/usr/include"):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            try:
                data = path.read_bytes()
                text = data.decode("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            digest = hashlib.sha256(data).digest()
            if not text or digest in seen:
                continue
            seen.add(digest)
            texts.append(text)
            size += len(data)
            if size >= megabytes * 1_000_000:
                return texts
    return texts


def write_parquet(texts: list[str], folder: Path, files: int = 4) -> int:
    """Writes the texts as parquet of 1,000 rows a group, shuffled; returns their bytes of UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = np.random.default_rng(0).permutation(len(texts))
    for number, part in enumerate(np.array_split(order, files)):
        table = pa.table({"text": [texts[i] for i in part]})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=1000, compression="zstd")
    return sum(len(text.encode()) for text in texts)


def usual_setup() -> None:
    """A worker of the usual way builds its encoder."""
    global encode, eot
    import tiktoken

    from myna.text.tokenizer import Tokenizer

    gpt2 = Tokenizer.gpt2()
    ranks = {gpt2.token_bytes(rank): rank for rank in range(gpt2.eot)}
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    encode, eot = encoding.encode_ordinary, 50256


def usual_tokenize(text: str) -> np.ndarray:
    """One document's ids, behind the end-of-text id."""
    ids = np.array([eot, *encode(text)])
    assert ids.min() >= 0
    assert ids.max() < 2**16
    return ids.astype(np.uint16)


def usual_documents(folder: Path) -> Iterator[str]:
    """The rows, one by one."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["text"]):
            yield from batch.column(0).to_pylist()


def usual_way(folder: Path, out: Path, workers: int) -> None:
    """The pool over documents that reproductions of GPT-2 are usually prepared by."""
    out.mkdir()
    shard, filled, number = np.empty(SHARD_TOKENS, dtype=np.uint16), 0, 0
    with multiprocessing.Pool(workers, usual_setup) as pool:
        for ids in pool.imap(usual_tokenize, usual_documents(folder), chunksize=16):
            while len(ids):
                part, ids = ids[: SHARD_TOKENS - filled], ids[SHARD_TOKENS - filled :]
                shard[filled : filled + len(part)] = part
                filled += len(part)
                if filled == SHARD_TOKENS:
                    np.save(out / f"train_{number:06d}.npy", shard)
                    filled, number = 0, number + 1
    np.save(out / f"train_{number:06d}.npy", shard[:filled])


def tree_memory(pid: int) -> int:
    """Bytes that a process and its descendants hold for themselves and share fairly (PSS), by /proc."""
    total, todo = 0, [pid]
    while todo:
        current = todo.pop()
        try:
            for line in Path(f"/proc/{current}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{current}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total


def measure(command: list[str]) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and peak memory of a command and its children."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.monotonic() - began
    watcher.join()
    assert code == 0, command
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def stream(folder: Path) -> np.ndarray:
    """All training ids of a folder."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob("train_*.npy"))])


def main() -> None:
    """Runs both, twice in turn, and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=480)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--usual", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.usual:
        usual_way(*options.usual, options.workers)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "corpus")
        folder.mkdir()
        size = write_parquet(collect(options.megabytes), folder)
        workers = str(options.workers)
        best: dict[str, tuple[float, float, int]] = {}
        for repeat in range(options.repeats):
            outs = {name: Path(temporary, f"{name}{repeat}") for name in ("usual", "myna")}
            usual = [
                sys.executable,
                __file__,
                "--usual",
                str(folder),
                str(outs["usual"]),
                "--workers",
                workers,
            ]
            myna = [sys.executable, "-m", "myna", "prepare", str(folder), "--out", str(outs["myna"])]
            commands = {"usual": usual, "myna": [*myna, "--val-fraction", "0", "--workers", workers]}
            for name, command in commands.items():
                measured = measure(command)
                best[name] = min(best.get(name, measured), measured)
            ids = {name: stream(out) for name, out in outs.items()}
            assert np.array_equal(ids["usual"], ids["myna"]), "the two ways gave different ids"
        tokens = len(ids["myna"])
        print(f"{size / 1e6:.0f} MB of text, {tokens:,} tokens, {options.workers} workers, ids equal")
        for name, (seconds, processor, peak) in best.items():
            rate = f"{tokens / 1e6 / seconds:.2f} million tokens/s, {size / 1e6 / seconds:.1f} MB/s"
            print(
                f"{name:>6}: {seconds:.1f} s ({processor:.1f} s of processors), {rate}, peak {peak / 1e6:,.0f} MB"
            )
        ratios = [usual / ours for usual, ours in zip(best["usual"], best["myna"], strict=True)]
        print(f"myna: {ratios[0]:.1f} times as fast; {ratios[1]:.1f} times less work for the processors")
        assert ratios[0] > 2


if __name__ == "__main__":
    main()
