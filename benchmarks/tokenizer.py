"""The tokenizer's claims, measured: each a ratio of two things run in turn on the same text, on this machine.

    python benchmarks/tokenizer.py                      all of it, some ten minutes on 2 cores
    python benchmarks/tokenizer.py small|large|sizes|encode|runs

    small   training on 1 MB to 512 ids, against minbpe's algorithm                    asserts 200x
    large   training on 100 MB to 50,257 ids, against Hugging Face's trainer, rustbpe  asserts no slower than the first
    sizes   `myna tokenizer train` on 60 MB, 500 MB and all text there is, as a whole
            process with its memory, against a program that calls rustbpe              asserts 1.5 times its time
    encode  bulk encoding of 100 MB on one thread, against tiktoken; the same ids      asserts 8x
    runs    a megabyte of one character                                                asserts 1 s each

The text is real: sources and documentation of the Python packages on this machine, of /usr/share and of Python itself,
each file once, up to 100 MB where nothing else is said. cl100k's ranks can't be had offline, so "gpt4" is its pattern
with ranks trained here, and tiktoken runs the same ranks. Each section runs in a process of its own, with the threads
it names.
"""

import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

SUFFIXES = {".py", ".pyi", ".md", ".rst", ".txt", ".html", ".xml", ".h"}
THREADS = {"small": "1", "encode": "1", "runs": "1"}
LARGEST_FILE = 2_000_000


def real_text(n_bytes: int, suffixes: set[str] = SUFFIXES) -> list[str]:
    """About `n_bytes` of text from this machine's files, a document a file."""
    texts: list[str] = []
    seen: set[bytes] = set()
    for data in _files(suffixes):
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            continue
        seen.add(digest)
        try:
            texts.append(data.decode("utf-8"))
        except UnicodeDecodeError:
            continue
        n_bytes -= len(data)
        if n_bytes <= 0:
            break
    return texts


def _files(suffixes: set[str]) -> Iterator[bytes]:
    for root in (sysconfig.get_path("purelib"), "/usr/share", sysconfig.get_path("stdlib")):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix in suffixes and path.is_file() and not path.is_symlink():
                try:
                    if path.stat().st_size <= LARGEST_FILE:
                        yield path.read_bytes()
                except OSError:
                    continue


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def minbpe_train(text: str, n_merges: int, pattern: str) -> list[tuple[int, int]]:
    """minbpe's algorithm: every merge counts all pairs of the whole text again, and rewrites the whole text."""
    import regex

    chunks = [list(chunk.encode("utf-8")) for chunk in regex.findall(pattern, text)]
    merges = []
    for new_id in range(256, 256 + n_merges):
        counts: dict[tuple[int, int], int] = {}
        for chunk in chunks:
            for pair in pairwise(chunk):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: counts[pair])
        merges.append(best)
        for number, chunk in enumerate(chunks):
            chunks[number] = _replaced(chunk, best, new_id)
    return merges


def _replaced(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def small() -> dict[str, Any]:
    """1 MB to 512 ids."""
    from myna import Tokenizer
    from myna.text import patterns

    text = "".join(real_text(20_000_000)[::20])[:1_000_000]
    ours = min(timed(lambda: Tokenizer.train([text], 257 + 256))[0] for _ in range(3))
    naive, merges = timed(lambda: minbpe_train(text, 256, patterns.GPT2.python))
    tokens = Tokenizer.train([text], 257 + 256).vocabulary.tokens[256:]
    table = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        table.append(table[left] + table[right])
    ratio = naive / ours
    print(f"small: 1 MB to 512 ids: minbpe's algorithm {naive:.1f} s, ours {ours:.3f} s: {ratio:.0f}x")
    print(f"       {len(set(tokens) & set(table[256:]))} of 256 merges the same (the rules for ties differ)")
    assert ratio >= 200, ratio
    return {"minbpe_s": naive, "ours_s": ours, "ratio": ratio}


def large() -> dict[str, Any]:
    """100 MB to 50,257 ids, all cores."""
    from myna.text import patterns
    from myna.text.training import learn

    texts = real_text(100_000_000)
    n_bytes = sum(len(text.encode("utf-8")) for text in texts)
    workers = os.cpu_count() or 1
    found: dict[str, Any] = {"bytes": n_bytes, "workers": workers}
    for pattern in (patterns.GPT2, patterns.GPT4):
        ours, learned = timed(lambda pattern=pattern: learn(texts, 50_257, pattern, workers))
        theirs, _ = timed(lambda pattern=pattern: hugging_face_train(texts, 50_257, pattern.oniguruma))
        line = f"large: {n_bytes / 1e6:.0f} MB to 50,257 ids, {pattern.name}, {workers} workers: ours {ours:.1f} s "
        line += f"(counting {learned.count_seconds:.1f}, merging {learned.merge_seconds:.1f}), "
        line += f"Hugging Face {theirs:.1f} s"
        found[pattern.name] = {"ours_s": ours, "hugging_face_s": theirs, "unique": learned.unique_pretokens}
        try:
            import rustbpe

            rust, _ = timed(
                lambda pattern=pattern: rustbpe.Tokenizer().train_from_iterator(
                    iter(texts), 50_256, pattern=pattern.rust
                )
            )
            line += f", rustbpe {rust:.1f} s"
            found[pattern.name]["rustbpe_s"] = rust
        except ImportError:
            line += ", rustbpe not installed"
        print(f"{line}: {theirs / ours:.2f}x Hugging Face", flush=True)
        assert ours <= theirs, (ours, theirs)
    return found


def hugging_face_train(texts: list[str], vocab_size: int, expression: str) -> Any:
    """Hugging Face's trainer with the same pattern."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


# What is trained on, by name: bytes, and the endings of the files.
CORPORA = {
    "60 MB of Python": (60_000_000, {".py"}),
    "500 MB": (500_000_000, SUFFIXES),
    "all": (1 << 40, SUFFIXES),
}
# rustbpe's whole program: reads the same files, trains, and writes the ranks.
RUSTBPE_PROGRAM = """
import base64, sys
from pathlib import Path
import rustbpe
folder, pattern, out = sys.argv[1:]
tokenizer = rustbpe.Tokenizer()
texts = (path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir()))
tokenizer.train_from_iterator(texts, 50_256, pattern=pattern)
with open(out, "wb") as file:
    for token, rank in tokenizer.get_mergeable_ranks():
        file.write(base64.b64encode(bytes(token)) + f" {rank}\\n".encode())
"""


def sizes() -> dict[str, Any]:
    """Whole processes to 50,257 ids with GPT-2's pattern: the quicker of two turns, and the most memory."""
    import importlib.util

    from myna.text import patterns

    found: dict[str, Any] = {}
    for name, (wanted, suffixes) in CORPORA.items():
        with tempfile.TemporaryDirectory() as place:
            folder, out = Path(place) / "text", Path(place) / "out"
            folder.mkdir()
            n_bytes = 0
            for number, batch in enumerate(batched(real_text(wanted, suffixes), 4_000_000)):
                n_bytes += (folder / f"{number:04d}.txt").write_bytes("".join(batch).encode("utf-8"))
            commands = {
                "ours": [
                    *(sys.executable, "-m", "myna", "tokenizer", "train", str(folder)),
                    *("--vocab-size", "50257", "--out", f"{out}.tiktoken"),
                ],
                "rustbpe": [sys.executable, "-c", RUSTBPE_PROGRAM, str(folder), patterns.GPT2.rust, str(out)],
            }
            if importlib.util.find_spec("rustbpe") is None:
                del commands["rustbpe"]
            turns: dict[str, list[tuple[float, int]]] = {which: [] for which in commands}
            for _ in range(2):
                for which, command in commands.items():
                    turns[which].append(whole_process(command))
                    for made in Path(place).glob("out*"):
                        made.unlink()
        best = {which: min(times) for which, times in turns.items()}
        found[name] = {"bytes": n_bytes} | {
            which: {"s": seconds, "peak_bytes": peak} for which, (seconds, peak) in best.items()
        }
        told = ", ".join(
            f"{which} {seconds:.1f} s, {peak / 1e6:,.0f} MB" for which, (seconds, peak) in best.items()
        )
        print(f"sizes: {name} ({n_bytes / 1e6:.0f} MB): {told}", flush=True)
        if "rustbpe" in best:
            assert best["ours"][0] <= 1.5 * best["rustbpe"][0], best
    return found


def whole_process(command: list[str]) -> tuple[float, int]:
    """Seconds of a program, and the most bytes that it and its processes had together, looked at every 0.2 s."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, session_bytes(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    seconds = time.perf_counter() - start
    assert process.returncode == 0, command
    return seconds, peak


def session_bytes(session: int) -> int:
    """Memory of the processes of a session; what several share is counted once (Linux's Pss)."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(place.name)) == session:
                line = next(
                    x for x in (place / "smaps_rollup").read_text().splitlines() if x.startswith("Pss:")
                )
                total += int(line.split()[1]) * 1024
        except (OSError, StopIteration):
            continue
    return total


def encode() -> dict[str, Any]:
    """Bulk encoding of 100 MB on one thread, and the same ids."""
    import numpy as np
    import tiktoken

    from myna import Tokenizer

    texts = real_text(100_000_000)
    n_bytes = sum(len(text.encode("utf-8")) for text in texts)
    found: dict[str, Any] = {"bytes": n_bytes}
    batches = batched(texts, 4_000_000)
    for tok in (Tokenizer.gpt2(), Tokenizer.train(texts, 50_257, "gpt4")):
        vocabulary = tok.vocabulary
        oracle = tiktoken.Encoding(
            "oracle",
            pat_str=vocabulary.pattern.rust,
            mergeable_ranks=vocabulary.ranks,
            special_tokens=tok.special_tokens,
        )
        passes = [bulk_pass(vocabulary, batches) for _ in range(5)]
        ours = statistics.median(seconds for seconds, _ in passes)
        ids, lengths = (np.concatenate(arrays) for arrays in zip(*passes[0][1], strict=True))
        theirs, rows = timed(lambda oracle=oracle: [oracle.encode_ordinary(text) for text in texts])
        assert lengths.tolist() == [len(row) for row in rows]
        assert ids.tolist() == [i for row in rows for i in row], "ids differ from tiktoken's"
        decoding, text = timed(lambda tok=tok, ids=ids: tok.decode(ids.tolist()))
        assert text == "".join(texts)
        print(
            f"encode: {n_bytes / 1e6:.0f} MB, {vocabulary.pattern.name}, 1 thread: "
            f"tiktoken {n_bytes / 1e6 / theirs:.1f} MB/s, ours (median of 5) {n_bytes / 1e6 / ours:.1f} MB/s: "
            f"{theirs / ours:.1f}x; all {len(ids):,} ids equal; "
            f"decoding {n_bytes / 1e6 / decoding:.0f} MB/s",
            flush=True,
        )
        found[vocabulary.pattern.name] = {
            "ours_s": ours,
            "tiktoken_s": theirs,
            "ratio": theirs / ours,
            "ids": len(ids),
        }
        assert theirs / ours >= 8, theirs / ours
    return found


def bulk_pass(vocabulary: Any, batches: list[list[str]]) -> tuple[float, Any]:
    """One pass by a new tokenizer, which has no pre-token in its cache."""
    from myna import Tokenizer
    from myna.text.engines import RankModel

    fresh = Tokenizer(RankModel(vocabulary), "fresh")
    fresh.encode_arrays(["start the engine"])
    return timed(lambda: [fresh.encode_arrays(batch) for batch in batches])


def batched(texts: list[str], characters: int) -> list[list[str]]:
    """Texts in lists of about so many characters, as `myna prepare` encodes them."""
    batches: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > characters:
            batches.append([])
            size = 0
        batches[-1].append(text)
        size += len(text)
    return batches


def runs() -> dict[str, Any]:
    """A megabyte of one character, by each way in."""
    from myna import Tokenizer

    million = 1_000_000
    texts = {
        "a": "a" * million,
        "spaces": " " * million,
        "spaces, letter": " " * million + "a",
        "newlines": "\n" * million,
        "^": "^" * million,
        "combining mark": "\u0301" * (million // 2),
        "spaces, letter new to Unicode": " " * million + "\u088f",
    }
    found: dict[str, Any] = {}
    gpt4 = Tokenizer.train(real_text(5_000_000), 10_000, "gpt4")
    for tok in (Tokenizer.gpt2(), gpt4):
        tok.encode_arrays(["warm"])
        for name, text in texts.items():
            ways = (tok.encode, lambda text, tok=tok: tok.encode_arrays([text]), tok.model.encode_cut)
            seconds = [timed(lambda way=way, text=text: way(text))[0] for way in ways]
            found[f"{tok.name}: {name}"] = seconds
            print(
                f"runs: {tok.name}, {name}: encode {seconds[0]:.3f} s, bulk {seconds[1]:.3f} s, "
                f"tiktoken {seconds[2]:.3f} s"
            )
            assert max(seconds) < 1, (name, seconds)
    return found


SECTIONS = {"small": small, "large": large, "sizes": sizes, "encode": encode, "runs": runs}


def main(names: list[str]) -> None:
    """Runs the sections named, or all, each in its own process."""
    if len(names) == 2 and names[0] == "--here":
        print(json.dumps(SECTIONS[names[1]]()))
        return
    if unknown := set(names) - SECTIONS.keys():
        sys.exit(
            f"{__doc__}"
            if unknown <= {"-h", "--help"}
            else f"no section {unknown}; there are {', '.join(SECTIONS)}"
        )
    for name in names or SECTIONS:
        threads = {"RAYON_NUM_THREADS": THREADS[name]} if name in THREADS else {}
        subprocess.run([sys.executable, __file__, "--here", name], check=True, env=os.environ | threads)


if __name__ == "__main__":
    main(sys.argv[1:])
