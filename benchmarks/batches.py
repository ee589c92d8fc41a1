"""Computing a batch of 64 x 1024 from ten billion tokens: time and memory, at random steps.

The shards are sparse files: 100 of 100 million ids each, which take no room. The same windows read through memory
maps stand beside ours, to see what each leaves in the process.

    python benchmarks/batches.py
"""

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from myna.data.batches import TrainStream
from myna.data.shards import NPY_HEADER_BYTES, npy_header
from myna.data.split import Shard, Split

SHARDS, SHARD_TOKENS = 100, 100_000_000
SAMPLES, LENGTH, STEPS = 64, 1024, 300


def resident_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def sparse_split(folder: Path, shards: int) -> Split:
    """A split of `shards` sparse files."""
    found = []
    for number in range(shards):
        path = folder / f"train_{number:06d}.npy"
        with open(path, "wb") as file:
            file.write(npy_header(np.dtype("<u2"), SHARD_TOKENS))
            file.truncate(NPY_HEADER_BYTES + 2 * SHARD_TOKENS)
        found.append(Shard(path, SHARD_TOKENS, NPY_HEADER_BYTES, np.dtype("<u2")))
    return Split(f"{shards} shards", found, vocab_size=50257)


def ours(stream: TrainStream, first_sample: int) -> np.ndarray:
    """The package's way."""
    return stream.batch(first_sample, SAMPLES)[0]


def mapped(maps: list[np.ndarray], stream: TrainStream, first_sample: int) -> np.ndarray:
    """The same windows, each from a memory map of its shard."""
    rows = np.empty((SAMPLES, LENGTH + 1), dtype=np.int64)
    for row, start in zip(rows, stream.windows(first_sample, SAMPLES), strict=True):
        within = start % SHARD_TOKENS
        part = maps[start // SHARD_TOKENS][within : within + LENGTH + 1]
        row[: len(part)] = part
    return rows[:, :-1]


def measure(way: Callable[[int], np.ndarray], steps: list[int]) -> tuple[np.ndarray, float]:
    """Milliseconds of each step's batch, and by how many MB the process grew meanwhile."""
    way(0)
    before = resident_bytes()
    times = []
    for step in steps:
        began = time.perf_counter()
        inputs = way(step * SAMPLES)
        times.append(1e3 * (time.perf_counter() - began))
        assert inputs.shape == (SAMPLES, LENGTH)
    return np.array(times), (resident_bytes() - before) / 1e6


def main() -> None:
    """Prints a table; fails if a batch takes over 5 ms at the median or memory grows with the dataset."""
    with tempfile.TemporaryDirectory() as temporary:
        for shards in (1, SHARDS):
            folder = Path(temporary, str(shards))
            folder.mkdir()
            stream = TrainStream(sparse_split(folder, shards), LENGTH, seed=1)
            steps = np.random.default_rng(0).integers(0, 10**6, STEPS).tolist()
            maps = [np.load(shard.path, mmap_mode="r") for shard in stream.split.shards]
            ways = {"ours": partial(ours, stream), "memory maps": partial(mapped, maps, stream)}
            for name, way in ways.items():
                times, grown = measure(way, steps)
                print(
                    f"{stream.split.n_tokens:>14,} tokens, {name:>11}: median {np.median(times):.2f} ms, "
                    f"99th percentile {np.percentile(times, 99):.2f} ms, memory {grown:+.0f} MB"
                )
                if name == "ours":
                    assert np.median(times) < 5
                    assert grown < 20


if __name__ == "__main__":
    main()
