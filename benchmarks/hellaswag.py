"""HellaSwag with GPT-2's shape: the lecture's loop and ours in turn, items a second, with the same answers.

    python benchmarks/hellaswag.py                                # the file beside the checkout, fp32 and bf16
    python benchmarks/hellaswag.py --items 48 --precisions fp32   # quick
    OMP_NUM_THREADS=1 python benchmarks/hellaswag.py --clock cpu  # on a busy machine

Random weights: what is answered does not matter for the time. The lecture's loop takes one item at a time: the context
with each of the four endings is a row, padded to the longest; the network computes all logits of the four rows, and
cross-entropy the loss of each id, of which those of the ending are added up. Ours is what `myna eval` runs. The sides
take turns in one process, and the fastest turn of each is compared, since other work on the machine only adds time.

*products* are the floating-point operations of the products with weights, counted from the positions that each side
sends through blocks and head. *of limit* is their speed against one large matrix product in the same precision.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from myna.bench.lecture import LectureGPT
from myna.device import autocast, processor_name
from myna.evaluate.continuations import Question, question_scores
from myna.evaluate.hellaswag import encode_items, read_items
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

ITEMS = Path(__file__).resolve().parents[2] / "shared" / "data" / "hellaswag_val_first500.jsonl"
AIM = {"fp32": 2.1, "bf16": 3.0}
LARGE = 1536  # rows and columns of the product that shows the limit
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

# The costs of four endings, and how many ids each has.
Answers = list[tuple[list[float], list[int]]]


@torch.no_grad()
def lecture(model: LectureGPT, questions: Sequence[Question], dtype: torch.dtype | None) -> Answers:
    """One item at a time."""
    answers: Answers = []
    for question in questions:
        longest = max(map(len, question.rows))
        ids, ending = torch.zeros(2, 4, longest, dtype=torch.int64)
        for number, (row, n) in enumerate(zip(question.rows, question.scored, strict=True)):
            ids[number, : len(row)] = torch.tensor(row)
            ending[number, len(row) - n : len(row)] = 1
        with autocast(ids.device, dtype):
            logits = model.logits(ids)  # (4, T, V)
        before, targets = logits[:, :-1], ids[:, 1:]
        nats = F.cross_entropy(before.reshape(-1, before.size(-1)), targets.reshape(-1), reduction="none")
        costs = (nats.view(4, -1).float() * ending[:, 1:]).sum(dim=1)
        answers.append((costs.tolist(), ending.sum(dim=1).tolist()))
    return answers


def ours(
    model: GPT, questions: Sequence[Question], dtype: torch.dtype | None, batch_positions: int
) -> Answers:
    """What `myna eval` runs."""
    found = {}
    for batch in question_scores(model, questions, autocast_dtype=dtype, batch_positions=batch_positions):
        found |= batch
    in_order = [found[number] for number in range(len(questions))]
    return [([s.nats for s in scores], [s.tokens for s in scores]) for scores in in_order]


def choices(answers: Answers) -> list[tuple[int, int]]:
    """The chosen ending of each item: by sum, and by mean."""
    chosen = []
    for costs, tokens in answers:
        means = [cost / n for cost, n in zip(costs, tokens, strict=True)]
        chosen.append((costs.index(min(costs)), means.index(min(means))))
    return chosen


def lecture_flops(config: GPTConfig, questions: Sequence[Question]) -> float:
    """Of the products with weights: every position of four padded rows, through blocks and head."""
    positions = sum(4 * max(map(len, question.rows)) for question in questions)
    return positions * (block_flops(config) + head_flops(config))


def our_flops(model: GPT, work: Callable[[], object]) -> float:
    """The same of our side, from the positions that it computes."""
    computed = {"hidden": 0, "logits": 0}
    hidden, logits = model.hidden, model.logits

    def count_hidden(ids, *rest):
        computed["hidden"] += ids.numel()
        return torch.zeros(*ids.shape, model.config.n_embd)

    def count_logits(x):
        computed["logits"] += len(x)
        return torch.zeros(len(x), model.config.vocab_size)

    model.hidden, model.logits = count_hidden, count_logits  # type: ignore[method-assign]
    try:
        work()
    finally:
        model.hidden, model.logits = hidden, logits  # type: ignore[method-assign]
    return computed["hidden"] * block_flops(model.config) + computed["logits"] * head_flops(model.config)


def block_flops(config: GPTConfig) -> float:
    """Of one position through all blocks."""
    return 2 * 12 * config.n_embd**2 * config.n_layer


def head_flops(config: GPTConfig) -> float:
    """Of one position through the head."""
    return 2 * config.n_embd * config.vocab_size


def limit_flops(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """What one large product reaches, FLOP/s: the best of a few."""
    a = torch.randn(LARGE, LARGE, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        began = clock()
        a @ a
        best = min(best, clock() - began)
    return 2 * LARGE**3 / best


def compare(
    call: argparse.Namespace, precision: str, model: GPT, questions: Sequence[Question]
) -> dict[str, object]:
    """Prints one precision's table; returns its numbers."""
    dtype = {"fp32": None, "bf16": torch.bfloat16}[precision]
    theirs = LectureGPT.with_weights(model.config, model.state_dict(), flash=True, padded=True)
    sides: dict[str, Callable[[Sequence[Question]], Answers]] = {
        "lecture": lambda some: lecture(theirs, some, dtype),
        "ours": lambda some: ours(model, some, dtype, call.batch_positions),
    }
    flops = {
        "lecture": lecture_flops(model.config, questions),
        "ours": our_flops(model, lambda: sides["ours"](questions)),
    }
    clock = CLOCKS[call.clock]
    limit = 0.0
    seconds = dict.fromkeys(sides, float("inf"))
    answers: dict[str, Answers] = {}
    for work in sides.values():  # once without the clock: memory is asked for, kernels are chosen
        work(questions[:4])
    for _ in range(call.turns):
        limit = max(limit, limit_flops(dtype or torch.float32, clock))
        for name, work in sides.items():
            began = clock()
            answers[name] = work(questions)
            seconds[name] = min(seconds[name], clock() - began)
    chosen = {name: choices(found) for name, found in answers.items()}
    differing = sum(a != b for a, b in zip(*chosen.values(), strict=True))
    ratio = seconds["lecture"] / seconds["ours"]
    print(f"\n{precision}: {len(questions)} items; a large product reaches {limit / 1e9:.0f} GFLOP/s")
    print(f"{'':<8} {'items/s':>8} {'ratio':>6} {'products':>16} {'of limit':>9}")
    for name in sides:
        each = flops[name] / len(questions)
        print(
            f"{name:<8} {len(questions) / seconds[name]:>8.2f} {seconds['lecture'] / seconds[name]:>6.2f} "
            f"{each / 1e9:>8.1f} GFLOP/item {flops[name] / seconds[name] / limit:>6.0%}",
            flush=True,
        )
    print(f"{differing} of {len(questions)} items answered differently; the aim is {AIM[precision]} times")
    return {
        "precision": precision,
        "items": len(questions),
        "seconds": seconds,
        "ratio": ratio,
        "flops": flops,
        "limit_flops": limit,
        "differing": differing,
    }


def main() -> None:
    """Prints the tables, and with --json an object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ITEMS, help="items in HellaSwag's format")
    parser.add_argument("--items", type=int, default=500, help="how many of them, spread over the file")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "bf16"])
    parser.add_argument("--batch-positions", type=int, help="of ours; default: as `myna eval`")
    parser.add_argument("--turns", type=int, default=2, help="how often each side has its turn")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: seconds of processors")
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = Tokenizer.gpt2()
    model = GPT(GPTConfig(n_layer=call.layers)).eval()
    items = read_items(call.data)
    step = max(1, len(items) // call.items)
    questions = encode_items(items[::step][: call.items], tokenizer, model.config.block_size)
    print(f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    found = [compare(call, precision, model, questions) for precision in call.precisions]
    if call.json:
        json.dump(found, sys.stdout)
        print()
    differing = [one["differing"] for one in found if one["precision"] == "fp32"]
    assert not any(differing), "the sides don't answer alike in fp32"


if __name__ == "__main__":
    main()
