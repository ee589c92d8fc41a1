"""What the speedrun recipe is worth: tokens and seconds to equal loss, against GPT-2's network with AdamW.

    python benchmarks/speedrun.py --horizon 2000000          # all of it; hours. Call again to go on
    python benchmarks/speedrun.py --table                    # what is measured so far

The text is this machine's (machine_text.py), the vocabulary has 4,096 ids, the networks 4 layers of 256 and 256
positions. Every run is an ordinary `myna train` with its own horizon and its own decay, so no
loss is read off the middle of a longer run. The loss is of the whole validation split, after the last step.

    lecture    GPT-2 with the lecture's numbers: AdamW, 6e-4, warmup, cosine to a tenth
    tuned      the same with the best learning rate of four, in steps of the square root of 2
    speedrun   NanoChat's network, Muon, constant rate and then a line to 0; the best learning rate of four

The order: the learning rates of *tuned* and *speedrun* at the horizon H (where the best is the first or the last of
them, one more beyond it, and one more for the other side as well); then two fresh seeds: *tuned* at H, *speedrun* at
H/2 and H/3, and where that is still below *tuned*, at shorter horizons until it is above; then the rungs, from *tuned*
to *speedrun* one idea at a time, at H/2, and *lecture*; then three more seeds. Results are one JSON line a run; a run
that is there is not made again. Seconds come from `--times`: the steps of the sides in turn, since runs that share a
machine with others say little about time.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import queue
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHAPE = "--tokenizer from-data --n-layer 4 --n-head 4 --n-embd 256 --block-size 256 --sequence-length 256 --no-compile"
VOCABULARY = 4096
WARMUP_SHARE = 715 / 19_073  # the lecture's
SEEDS, LECTURE_SEEDS = (1, 2, 3, 4, 5), 2
DIVISORS = (2, 3, 4, 6, 8, 12, 16, 24)  # of H: the horizons of the speedrun recipe, the first two always
Result = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        flags: of `myna train`, beside the shape.
        rates: learning rates to try, or the one it has.
        adds: as a rung: what is new in it.
    """

    flags: str
    rates: tuple[float, ...] = ()
    adds: str = ""
    warms_up: bool = True


LINE = "--decay linear --constant-fraction 0.3 --final-learning-rate-fraction 0 --clip-norm 0"
PLAIN = {
    "embedding-norm": "--network.no-embedding-norm",
    "qk-norm": "--network.no-qk-norm",
    "relu2": "--network.activation gelu",
    "zero-projections": "--network.no-zero-projections",
    "untied-head": "--network.tied-head",
    "softcap": "--network.softcap 0",
}  # how each of NanoChat's ideas is switched off


def nanochat(*ideas: str) -> str:
    """NanoChat's network with some of its ideas alone."""
    return " ".join(["--network nanochat", *(off for idea, off in PLAIN.items() if idea not in ideas)])


MUON = f"--optimizer muon {LINE}"
MUON_RATES = (0.00884, 0.0125, 0.0177, 0.025)
ARMS = {
    "lecture": Arm("", (6e-4,)),
    "tuned": Arm("", (5e-4, 7e-4, 1e-3, 1.4e-3)),
    "speedrun": Arm(f"{nanochat(*PLAIN)} {MUON}", MUON_RATES, warms_up=False),
}
RUNGS = {
    "rung 0": Arm("", adds="GPT-2, AdamW, the best learning rate at H"),
    "rung 1": Arm(LINE, adds="a constant rate for 30%, then a line to 0; no clipping"),
    "rung 2": Arm(MUON, adds="Muon, without warmup", warms_up=False),
    "rung 3": Arm(f"{nanochat()} {MUON}", adds="rotary positions, RMSNorm, no biases", warms_up=False),
    "rung 4": Arm(f"{nanochat('qk-norm')} {MUON}", adds="QK-norm", warms_up=False),
    "rung 5": Arm(f"{nanochat('qk-norm', 'relu2')} {MUON}", adds="ReLU²", warms_up=False),
    "rung 6": Arm(
        f"{nanochat('qk-norm', 'relu2', 'untied-head', 'embedding-norm')} {MUON}",
        adds="a head of its own, and a norm after the embedding",
        warms_up=False,
    ),
    "rung 7": Arm(
        f"{nanochat('qk-norm', 'relu2', 'untied-head', 'embedding-norm', 'zero-projections')} {MUON}",
        adds="projections and head that begin at 0",
        warms_up=False,
    ),
    "rung 8": Arm(f"{nanochat(*PLAIN)} {MUON}", adds="softcap: the whole recipe", warms_up=False),
}


@dataclass(frozen=True)
class Job:
    """A run to make."""

    arm: str
    tokens: int
    rate: float
    seed: int


def flags_of(arm: str) -> str:
    return (ARMS | RUNGS)[arm].flags


def command(job: Job, step_tokens: int, precision: str, data: Path, out: Path) -> list[str]:
    """The call of `myna train`."""
    arm = (ARMS | RUNGS)[job.arm]
    steps = round(job.tokens / step_tokens)
    warmup = max(1, round(WARMUP_SHARE * steps)) if arm.warms_up else 0
    numbers = {
        "--data": data,
        "--out": out,
        "--steps": steps,
        "--batch-tokens": step_tokens,
        "--micro-batch": 4,  # the same sums on all machines
        "--learning-rate": job.rate,
        "--warmup-steps": warmup,
        "--seed": job.seed,
        "--eval-every": steps,
        "--sample-every": 0,
        "--checkpoint-every": 0,
        "--device": "cpu",
        "--precision": precision,
    }
    flags = [str(part) for pair in numbers.items() for part in pair]
    return [sys.executable, "-m", "myna", "train", "gpt2-124m", *SHAPE.split(), *flags, *arm.flags.split()]


class Results:
    """The lines of the file, and the runs that make them."""

    def __init__(self, path: Path, data: Path, runs: Path, step_tokens: int, precision: str, threads: int):
        self.path, self.data, self.runs = path, data, runs
        self.step_tokens, self.precision, self.threads = step_tokens, precision, threads
        self.dataset = identity(data)
        self.lock = threading.Lock()
        lines = path.read_text().splitlines() if path.exists() else []
        self.lines: list[Result] = [json.loads(line) for line in lines if line]

    def of(self, arm: str, tokens: int | None = None, rate: float | None = None) -> list[Result]:
        """What is there of an arm on this dataset."""
        return [
            line
            for line in self.lines
            if line["arm"] == arm
            and line["flags"] == flags_of(arm)
            and line["dataset"] == self.dataset
            and line["step_tokens"] == self.step_tokens
            and line["precision"] == self.precision
            and tokens in (None, line["tokens"])
            and rate in (None, line["learning_rate"])
        ]

    def has(self, job: Job) -> bool:
        return any(line["seed"] == job.seed for line in self.of(job.arm, job.tokens, job.rate))

    def make(self, jobs: Sequence[Job], workers: int) -> None:
        """Makes the runs that are not there yet, some at once."""
        todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            if not self.has(job):
                todo.put(job)
        threads = [threading.Thread(target=self._work, args=(todo,)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, todo: "queue.SimpleQueue[Job]") -> None:
        while True:
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return
            result = self.run(job)
            with self.lock, open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
                self.lines.append(result)
            loss = result["val_loss"]
            print(f"{job.arm} {job.tokens:,} tokens, rate {job.rate}, seed {job.seed}: {loss}", flush=True)

    def run(self, job: Job) -> Result:
        """One run; a loss of None says that it diverged."""
        call = command(job, self.step_tokens, self.precision, self.data, self.runs)
        out = self.runs / hashlib.sha256(" ".join(map(str, call)).encode()).hexdigest()[:12]
        began = time.time()
        environ = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(
            command(job, self.step_tokens, self.precision, self.data, out),
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        metrics = out / "metrics.jsonl"
        records = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        losses = [record["val_loss"] for record in records if "val_loss" in record]
        diverged = "nothing was updated" in done.stderr
        if not losses and not diverged:
            raise RuntimeError(f"{' '.join(done.args)} failed:\n{done.stderr}")
        steps = {record["step"]: record["seconds"] for record in records if "seconds" in record}
        shutil.rmtree(out)
        return {
            "arm": job.arm,
            "tokens": job.tokens,
            "step_tokens": self.step_tokens,
            "precision": self.precision,
            "learning_rate": job.rate,
            "seed": job.seed,
            "flags": flags_of(job.arm),
            "dataset": self.dataset,
            "val_loss": losses[-1] if losses else None,
            "step_seconds": statistics.median(steps.values()),
            "seconds": round(time.time() - began, 1),
            "processor": processor(),
            "threads": self.threads,
        }


def identity(data: Path) -> str:
    """A hash of the dataset's ids, wherever the text lay."""
    described = json.loads((data / "dataset.json").read_text())
    shards = [shard["sha256"] for split in ("train", "val") for shard in described[split]["shards"]]
    return hashlib.sha256(" ".join(shards).encode()).hexdigest()[:16]


def processor() -> str:
    """Its name."""
    sys.path.insert(0, str(HERE.parent / "src"))
    from myna.device import processor_name

    return processor_name()


def best(results: Results, arm: str, horizon: int) -> tuple[float, float]:
    """The learning rate with the lowest loss at the horizon, and that loss."""
    tried = [(line["val_loss"] or math.inf, line["learning_rate"]) for line in results.of(arm, horizon)]
    tuning = [(loss, rate) for loss, rate in tried if rate in rates_tried(results, arm, horizon)]
    loss, rate = min(tuning)
    return rate, loss


def rates_tried(results: Results, arm: str, horizon: int) -> list[float]:
    """The learning rates of the arm's trials, sorted."""
    return sorted({line["learning_rate"] for line in results.of(arm, horizon) if line["seed"] == 0})


def tune(results: Results, horizon: int, workers: int) -> None:
    """Four learning rates of both sides; one more for both while the best of either is at an edge."""
    sides = ("tuned", "speedrun")
    results.make([Job(arm, horizon, rate, 0) for rates in zip(*(ARMS[arm].rates for arm in sides), strict=True)
                  for arm, rate in zip(sides, rates, strict=True)], workers)  # fmt: skip
    while any(best(results, arm, horizon)[0] in _edges(results, arm, horizon) for arm in sides):
        jobs = []
        for arm in sides:
            low, high = _edges(results, arm, horizon)
            rate, _ = best(results, arm, horizon)
            below = rate == low or (rate != high and rate * rate < low * high)
            jobs.append(
                Job(arm, horizon, float(f"{low / math.sqrt(2) if below else high * math.sqrt(2):.3g}"), 0)
            )
        results.make(jobs, workers)


def _edges(results: Results, arm: str, horizon: int) -> tuple[float, float]:
    rates = rates_tried(results, arm, horizon)
    return rates[0], rates[-1]


def seeds(results: Results, horizon: int, numbers: Sequence[int]) -> Iterator[Job]:
    """The fresh seeds, one of each side after the other, so that what is there at any time compares."""
    tuned, fast = (best(results, arm, horizon)[0] for arm in ("tuned", "speedrun"))
    for seed in numbers:
        yield Job("speedrun", horizon // 2, fast, seed)
        yield Job("tuned", horizon, tuned, seed)
        yield Job("speedrun", horizon // 3, fast, seed)


def lecture(horizon: int) -> Iterator[Job]:
    """The lecture's own numbers."""
    for seed in SEEDS[:LECTURE_SEEDS]:
        yield Job("lecture", horizon, ARMS["lecture"].rates[0], seed)


def shortened(results: Results, horizon: int, numbers: Sequence[int], workers: int) -> None:
    """Shorter horizons of the speedrun recipe, until one of them ends above *tuned* at H."""
    tuned, fast = (best(results, arm, horizon)[0] for arm in ("tuned", "speedrun"))
    target = statistics.fmean(losses(results.of("tuned", horizon, tuned)))
    for divisor, shorter in itertools.pairwise(DIVISORS[1:]):
        if statistics.fmean(losses(results.of("speedrun", horizon // divisor, fast))) > target:
            return
        results.make([Job("speedrun", horizon // shorter, fast, seed) for seed in numbers], workers)


def rungs(results: Results, horizon: int) -> Iterator[Job]:
    """One idea after another, at half the horizon."""
    tuned, fast = (best(results, arm, horizon)[0] for arm in ("tuned", "speedrun"))
    for name, arm in RUNGS.items():
        yield Job(name, horizon // 2, fast if "muon" in arm.flags else tuned, 1)


def losses(lines: Sequence[Result]) -> list[float]:
    """Of fresh seeds alone: the trials chose the learning rate, and would flatter it."""
    return [line["val_loss"] for line in lines if line["seed"] > 0 and line["val_loss"] is not None]


def tokens_to_equal_loss(target: Sequence[float], at: dict[int, list[float]]) -> float:
    """Where the line through the mean losses at two horizons, over the logarithm of tokens, meets the target's mean."""
    (short, a), (long, b) = sorted(
        (math.log(tokens), statistics.fmean(values)) for tokens, values in at.items()
    )
    return math.exp(short + (a - statistics.fmean(target)) / (a - b) * (long - short))


def interval(
    target: Sequence[float], at: dict[int, Sequence[float]], draws: int = 10_000
) -> tuple[float, float]:
    """The middle 95% of what resampled seeds give (bootstrap)."""
    rng = random.Random(0)
    found = []
    for _ in range(draws):
        again = {tokens: rng.choices(list(values), k=len(values)) for tokens, values in at.items()}
        means = sorted((tokens, statistics.fmean(values)) for tokens, values in again.items())
        if means[0][1] > means[1][1]:
            found.append(tokens_to_equal_loss(rng.choices(list(target), k=len(target)), again))
    found.sort()
    return found[int(0.025 * len(found))], found[int(0.975 * len(found))]


def table(results: Results, horizon: int) -> None:
    """Prints what is there, as Markdown."""
    print("| | learning rate | tokens | seeds | loss | deviation |\n|---|---|---|---|---|---|")
    for arm, tokens in itertools.product(ARMS, (horizon, *(horizon // d for d in DIVISORS))):
        for rate in sorted({line["learning_rate"] for line in results.of(arm, tokens)}):
            lines = results.of(arm, tokens, rate)
            for kind, some in (("trial", [x for x in lines if x["seed"] == 0]), ("", losses(lines))):
                values = [x["val_loss"] for x in some] if kind else some
                if not values:
                    continue
                mean = "diverged" if None in values else f"{statistics.fmean(values):.4f}"
                spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
                print(f"| {arm} | {rate} | {tokens:,} | {kind or len(values)} | {mean} | {spread} |")
    print("\n| rung | adds | loss | change |\n|---|---|---|---|")
    before = None
    for name, arm in RUNGS.items():
        for line in results.of(name, horizon // 2):
            loss = line["val_loss"]
            change = f"{loss - before:+.4f}" if before is not None and loss is not None else ""
            print(f"| {name} | {arm.adds} | {'diverged' if loss is None else f'{loss:.4f}'} | {change} |")
            before = loss if loss is not None else before
    tuned, fast = (best(results, arm, horizon)[0] for arm in ("tuned", "speedrun"))
    target = losses(results.of("tuned", horizon, tuned))
    at = {horizon // d: losses(results.of("speedrun", horizon // d, fast)) for d in DIVISORS}
    at = bracket(target, {tokens: values for tokens, values in at.items() if len(values) > 1})
    if len(target) > 1 and at:
        equal = tokens_to_equal_loss(target, at)
        low, high = interval(target, at)
        print(
            f"\nspeedrun reaches tuned's {statistics.fmean(target):.4f} after {equal:,.0f} tokens, "
            f"{equal / horizon:.3f} of {horizon:,} (95%: {low / horizon:.3f} to {high / horizon:.3f})"
        )


def bracket(target: Sequence[float], at: dict[int, list[float]]) -> dict[int, list[float]]:
    """The two neighbouring horizons between which the target's mean lies; none where it lies outside of all."""
    if not target:
        return {}
    for short, long in itertools.pairwise(sorted(at)):
        if statistics.fmean(at[short]) >= statistics.fmean(target) >= statistics.fmean(at[long]):
            return {short: at[short], long: at[long]}
    return {}


def times(results: Results, horizon: int, threads: int, turns: int = 5, steps: int = 20) -> None:
    """Seconds a step of each side in turn, on a machine that does nothing else."""
    rates = {arm: ARMS[arm].rates[0] for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn, arm in itertools.product(range(turns), ARMS):
        results.threads = threads
        result = results.run(Job(arm, steps * results.step_tokens, rates[arm], 1000 + turn))
        seconds[arm].append(result["step_seconds"])
    base = seconds["tuned"]
    for arm, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"{arm}: {statistics.median(values):.3f} s a step, {ratio:.3f} of tuned's")


def prepare(folder: Path) -> Path:
    """The dataset, made once."""
    text, tokenizer, data = folder / "machine_text.jsonl", folder / "tokenizer", folder / "data"
    myna = [sys.executable, "-m", "myna"]
    if not text.exists():
        subprocess.run([sys.executable, HERE / "machine_text.py", text], check=True)
    if not tokenizer.exists():
        flags = ["--vocab-size", str(VOCABULARY), "--out", str(tokenizer)]
        subprocess.run([*myna, "tokenizer", "train", str(text), *flags], check=True)
    flags = ["--tokenizer", str(tokenizer), "--val-fraction", "0.004", "--out", str(data)]
    subprocess.run([*myna, "prepare", str(text), *flags], check=True)
    return data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horizon", type=int, default=2_000_000, help="H, in tokens")
    parser.add_argument("--step-tokens", type=int, default=2048, help="tokens of a step")
    parser.add_argument("--precision", default="fp32", help="of all runs: bf16 where the processor has it")
    parser.add_argument("--workers", type=int, default=2, help="runs at once")
    parser.add_argument("--threads", type=int, default=1, help="of a run")
    parser.add_argument("--folder", type=Path, default=Path("data/speedrun"), help="for text and dataset")
    parser.add_argument("--results", type=Path, default=HERE / "speedrun.jsonl", help="one JSON line a run")
    parser.add_argument("--table", action="store_true", help="print what is measured, and stop")
    parser.add_argument("--times", action="store_true", help="measure seconds a step, and stop")
    call = parser.parse_args()
    data = prepare(call.folder)
    results = Results(
        call.results, data, call.folder / "runs", call.step_tokens, call.precision, call.threads
    )
    if call.times:
        times(results, call.horizon, os.cpu_count() or 1)
        return
    if not call.table:
        tune(results, call.horizon, call.workers)
        first, rest = SEEDS[:2], SEEDS[2:]
        results.make([*seeds(results, call.horizon, first)], call.workers)
        shortened(results, call.horizon, first, call.workers)
        results.make([*rungs(results, call.horizon), *lecture(call.horizon)], call.workers)
        results.make([*seeds(results, call.horizon, rest)], call.workers)
        shortened(results, call.horizon, SEEDS, call.workers)
    table(results, call.horizon)


if __name__ == "__main__":
    main()
