"""No slower than before: an older commit's sources and this tree's take turns at the same work.

    python benchmarks/before_after.py                                   # all tasks, a small shape, some minutes
    python benchmarks/before_after.py --tasks step-fp32 --shape gpt2-124m
    python benchmarks/before_after.py --before COMMIT --device cuda --json

Each task has a process for each tree, which lives through all alternations, so that starting isn't measured. An
alternation is some turns of each, interleaved, and gives one ratio: the fastest turn now over the fastest before,
because other work on the machine only ever adds time. Printed are the median of the ratios, and the interval that
holds their true median with 95% confidence or a little more (order statistics: nothing is assumed about how times
spread). Slower means that all of the interval is above 1. On a busy machine --clock cpu --threads 1 is steadier: it
counts the seconds of processors, which waiting for others doesn't add to.

Tasks: step-fp32, step-auto (a training step with gradient accumulation), prepare (`myna prepare`, end to end),
hellaswag (50 items), generate-1, generate-8 (rows at once, past the window's end).
"""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
BEFORE = "c9680ed"  # the last commit with one network and one optimizer
TURN_S = 0.2  # work is repeated within a turn until so much time has passed
WARM_UP = 2
N_ITEMS, N_NEW = 50, 128

Work = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Shape:
    """A network, and the micro-batches of an update."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    vocab_size: int
    micro_batch: int
    accumulate: int


SHAPES = {
    "small": Shape(4, 4, 128, 128, 8192, micro_batch=8, accumulate=2),
    "gpt2-124m": Shape(12, 12, 768, 1024, 50257, micro_batch=2, accumulate=1),
}


# What a worker does. It runs in both trees, and imports only what both have.


def make_model(shape: Shape, vocab_size: int, device: str) -> Any:
    """Fresh weights."""
    import torch

    from myna import GPT, GPTConfig

    torch.manual_seed(0)
    fields = {name: getattr(shape, name) for name in ("n_layer", "n_head", "n_embd", "block_size")}
    return GPT(GPTConfig(**fields, vocab_size=vocab_size)).to(device)


def step_task(shape: Shape, precision: str, compiled: bool, device: str) -> Work:
    """`myna train`'s update, on random ids. The one place that knows how a tree builds its step."""
    import torch

    from myna.bench.rungs import our_step
    from myna.train.recipe import Recipe

    model = make_model(shape, shape.vocab_size, device)
    recipe = Recipe(precision=precision, compile=compiled)  # type: ignore[arg-type]
    rows = (shape.accumulate, shape.micro_batch, shape.block_size + 1)
    ids = torch.randint(0, shape.vocab_size, rows, device=device)
    step, failure = our_step(
        model, recipe, [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in ids]
    )
    if failure:
        raise SystemExit(f"torch.compile failed: {failure}")
    return step


def prepare_task(folder: Path, workers: int) -> Work:
    """`myna prepare` with GPT-2's tokenizer."""
    from myna.cli import main

    out = folder / f"prepared-{os.getpid()}"
    call = ["prepare", str(folder / "text.jsonl"), "--out", str(out), "--workers", str(workers)]

    def work() -> None:
        assert main(call) == 0
        shutil.rmtree(out)

    return work


def hellaswag_task(shape: Shape, folder: Path, device: str) -> Work:
    """All four endings of each item."""
    from myna import Tokenizer
    from myna.evaluate.hellaswag import encode_items, read_items

    try:
        from myna.evaluate.choices import choice_sums
    except ImportError:  # the older tree
        from myna.evaluate.hellaswag import hellaswag_sums as choice_sums

    tokenizer = Tokenizer.gpt2()
    model = make_model(shape, tokenizer.n_vocab, device).eval()
    questions = encode_items(read_items(folder / "items.jsonl"), tokenizer, shape.block_size)
    return lambda: choice_sums(model, questions)


def generate_task(shape: Shape, rows: int, device: str) -> Work:
    """Sampled ids, from a prompt that fills half the window."""
    import torch

    from myna import generate

    model = make_model(shape, shape.vocab_size, device).eval()
    prompt = torch.randint(0, shape.vocab_size, (rows, shape.block_size // 2))
    new = min(N_NEW, shape.block_size)
    return lambda: generate(model, prompt, max_tokens=new, temperature=0.9, top_k=50, seed=1)


def make_task(call: argparse.Namespace) -> Work:
    """The work of a task."""
    shape = SHAPES[call.shape]
    tasks: dict[str, Callable[[], Work]] = {
        "step-fp32": lambda: step_task(shape, "fp32", call.compile, call.device),
        "step-auto": lambda: step_task(shape, "auto", call.compile, call.device),
        "prepare": lambda: prepare_task(call.folder, call.workers),
        "hellaswag": lambda: hellaswag_task(shape, call.folder, call.device),
        "generate-1": lambda: generate_task(shape, 1, call.device),
        "generate-8": lambda: generate_task(shape, 8, call.device),
    }
    return tasks[call.worker]()


def processor_seconds() -> float:
    """What this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def turn(work: Work, device: str, clock: Callable[[], float]) -> float:
    """Seconds of the work, the mean over a turn."""
    import torch

    began, times = clock(), 0
    while True:
        work()
        times += 1
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = clock() - began
        if seconds >= TURN_S:
            return seconds / times


def serve_turns(call: argparse.Namespace) -> None:
    """A worker: for each line that comes in, a turn's seconds go out."""
    import myna

    answers = sys.stdout
    clock = processor_seconds if call.clock == "cpu" else time.perf_counter
    with contextlib.redirect_stdout(io.StringIO()):
        work = make_task(call)
        for _ in range(WARM_UP):
            work()
        print(Path(myna.__file__).resolve().parents[1], file=answers, flush=True)
        for _ in sys.stdin:
            print(turn(work, call.device, clock), file=answers, flush=True)


# What the parent does. It imports neither torch nor myna.


class Worker:
    """A process that has one tree's sources and one task.

    Args:
        options: the worker's, as words.
    """

    def __init__(self, source: Path, task: str, options: list[str], environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--worker", task, *options],
            env=environment | {"PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._answer()
        if ready != str(source.resolve()):
            raise SystemExit(f"asked for the sources in {source}, Python took those in {ready}")

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"a worker ended with exit code {self.process.wait()}")
        return line

    def turn(self) -> float:
        """Seconds."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        return float(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()


def alternate(before: Worker, after: Worker, turns: int) -> tuple[float, float]:
    """Seconds of the fastest turn before and now. Who is first changes from turn to turn: before, now, now, before."""
    times: dict[Worker, list[float]] = {before: [], after: []}
    for number in range(turns):
        for worker in (after, before) if number % 2 else (before, after):
            times[worker].append(worker.turn())
    return min(times[before]), min(times[after])


def median_interval(values: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median with this confidence.

    Fewer than six values can't: then it is the extremes.

    A value lies below the true median as often as a coin shows heads, so the count of those below is binomial.

    >>> median_interval([float(n) for n in range(10)])  # the second and the ninth: 97.9%
    (1.0, 8.0)
    """
    ordered, n = sorted(values), len(values)
    cut, outside = 0, 1 / 2**n  # chance that at most `cut` lie on one given side
    while cut + 1 < n / 2 and 1 - 2 * (outside + math.comb(n, cut + 1) / 2**n) >= confidence:
        cut += 1
        outside += math.comb(n, cut) / 2**n
    return ordered[cut], ordered[n - 1 - cut]


def verdict(low: float, high: float) -> str:
    """In words.

    >>> verdict(0.99, 1.02)
    'the interval reaches 1'
    """
    if low > 1:
        return "SLOWER: the interval is above 1"
    return "faster: the interval is below 1" if high < 1 else "the interval reaches 1"


def extract(commit: str, folder: Path) -> Path:
    """Puts the sources of a commit into a folder; returns its `src`."""
    git = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "src"]
    done = subprocess.run(git, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git has no commit {commit} here: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def write_inputs(folder: Path, megabytes: int) -> None:
    """text.jsonl and items.jsonl: from the data beside the checkout, or made up where that is absent."""
    play = SHARED / "tinyshakespeare.txt"
    speeches = (
        play.read_text("utf-8").split("\n\n")
        if play.exists()
        else [" ".join(f"word{n * k % 9973} goes {n * k % 31}" for k in range(20)) for n in range(5000)]
    )
    size, number = 0, 0
    with open(folder / "text.jsonl", "w", encoding="utf-8") as file:
        while size < megabytes * 1_000_000:
            # Each document is other speeches in another order, so that none comes twice.
            chosen = [speeches[(number * 7919 + k * (number % 997 + 1)) % len(speeches)] for k in range(12)]
            size += file.write(json.dumps({"text": "\n\n".join(chosen)}) + "\n")
            number += 1
    official = SHARED / "hellaswag_val_first500.jsonl"
    if official.exists():
        items = official.read_text("utf-8").splitlines()[:N_ITEMS]
    else:
        endings = [f"and then goes home by way number {k}, slowly." for k in range(4)]
        item = {"activity_label": "Walking", "ctx_b": "", "label": 0, "endings": endings}
        contexts = [f"A person {'walks and ' * (n % 20)}rests." for n in range(N_ITEMS)]
        items = [json.dumps(item | {"ctx": context, "ctx_a": context}) for context in contexts]
    (folder / "items.jsonl").write_text("\n".join(items) + "\n", "utf-8")


TASKS = ("step-fp32", "step-auto", "prepare", "hellaswag", "generate-1", "generate-8")


def read_call() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--alternations", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3, help="of each tree in an alternation")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="of steps, HellaSwag and generation")
    parser.add_argument("--compile", action="store_true", help="compile the training step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of prepare")
    parser.add_argument("--megabytes", type=int, default=20, help="of text for prepare")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all times")
    parser.add_argument("--worker", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prints a line for each task."""
    call = read_call()
    if call.worker:
        serve_turns(call)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = (extract(call.before, folder), ROOT / "src")
        write_inputs(folder, call.megabytes)
        environment = os.environ | {
            "OMP_NUM_THREADS": str(call.threads),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),  # as `myna` sets it
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        options = ["--shape", call.shape, "--device", call.device, "--workers", str(call.workers)]
        options += ["--clock", call.clock]
        options += ["--folder", temporary, *(["--compile"] if call.compile else [])]
        for task in call.tasks:
            with (
                Worker(sources[0], task, options, environment) as before,
                Worker(sources[1], task, options, environment) as after,
            ):
                pairs = [alternate(before, after, call.turns) for _ in range(call.alternations)]
            ratios = [now / then for then, now in pairs]
            low, high = median_interval(ratios)
            middle = statistics.median(ratios)
            found[task] = {"ratio": middle, "low": low, "high": high, "before_and_now_s": pairs}
            if not call.json:
                seconds = statistics.median(then for then, _ in pairs)
                print(
                    f"{task:10}  before {seconds:7.3f} s  now/before {middle:.3f} ({low:.3f} to {high:.3f})  "
                    f"{verdict(low, high)}",
                    flush=True,
                )
    if call.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
