"""The tables of results.md: which parts stand in which, and which figures of a part's value are its cells."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpu.part import Part
from gpu.parts import BATCHES, CHOICES, MODELS, PARTS, PIECES
from myna.bench.limits_text import si
from myna.bench.table import cells as rung_cells
from myna.gpus import gpu_named

Cells = list[str]
Value = Any

LONGEST_SAMPLE = 200  # characters of it that stand in a cell
LONGEST_NAME = 80  # of a kernel's


@dataclass(frozen=True)
class Section:
    """A table.

    Attributes:
        columns: the first is the row's title.
        rows: of a part that is done, by its title and value.
        note: what a reader must know, above the table.
    """

    title: str
    parts: Sequence[Part]
    columns: Sequence[str]
    rows: Callable[[str, Value], Iterator[Cells]]
    note: str = ""


def machine(title: str, value: Value) -> Iterator[Cells]:
    """The limits that `myna device` measures."""
    for name, peak in value["peaks"].items():
        yield [
            f"matrix products, {name}",
            f"skipped: {peak['skipped']}" if "skipped" in peak else si(peak["flops"], "FLOP/s"),
        ]
    yield ["a large copy", si(value["copy_bytes_per_s"], "B/s")]
    yield ["memory", si(value["memory_bytes"], "B")]


def mfu(record: Value, device: str) -> str:
    """A rung's arithmetic over the peak of its GPU's data sheet in bf16 (fp16 where it has no bf16)."""
    gpu = gpu_named(device)
    return f"{record['flops'] / (gpu.half * 1e12):.1%}" if gpu else "no data sheet"


def rungs(title: str, value: Value) -> Iterator[Cells]:
    """All rungs of a ladder."""
    for record in value["rungs"]:
        if "skipped" in record:
            yield [record["title"], f"skipped: {record['skipped']}"]
            continue
        ms, rate, limit, ratio, memory, first = rung_cells(record)
        yield [record["title"], ms, rate, mfu(record, value["machine"]["name"]), limit, ratio, memory, first]


def ours(title: str, value: Value) -> Iterator[Cells]:
    """The rung ours alone."""
    (record,) = value["rungs"]
    ms, rate, limit, _, memory, first = rung_cells(record)
    compiled = "yes" if record["compiled"] else f"no: {record['compiler_failure'] or 'the recipe does not'}"
    share = mfu(record, value["machine"]["name"])
    yield [title, ms, rate, share, limit, memory, first, compiled]


def kernels(title: str, value: Value) -> Iterator[Cells]:
    """The longest kernels, and all others in one line."""
    whole, step = value["kernels_ms_per_step"], value["ms_per_step"]
    for kernel in value["kernels"]:
        name = kernel["name"]
        shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + " …"
        yield [f"`{shown}`", f"{kernel['calls']:.0f}", f"{kernel['ms']:.2f}", f"{kernel['share']:.1%}"]
    yield ["all others", "", f"{value['others_ms']:.2f}", f"{value['others_ms'] / whole:.1%}"]
    yield ["all kernels", "", f"{whole:.2f}", "100%"]
    yield ["a step by the clock, without the profiler", "", f"{step:.2f}", ""]
    if value["compiler_failure"]:
        yield [f"not compiled: {value['compiler_failure']}"]


def route(title: str, value: Value) -> Iterator[Cells]:
    """What the run recorded."""
    first, last = value["train_loss"]
    yield ["training loss, first and last step", f"{first:.3f}, {last:.3f}"]
    yield ["tokens/s, median of the last 10 steps", f"{value['tokens_per_second']:,.0f}"]
    yield ["MFU, by the data sheet", f"{value['mfu']:.1%}"]
    yield ["waiting for input, a step", f"{1e3 * value['input_wait_seconds']:.2f} ms"]
    yield ["micro-batch that `auto` chose", str(value["micro_batch"])]
    for record in value["evaluations"]:
        if "val_loss" in record:
            yield [f"validation loss after step {record['step']}", f"{record['val_loss']:.4f}"]
        if "hellaswag_acc" in record:
            items = record["hellaswag_items"]
            share = f"{record['hellaswag_acc_token']:.4f} of {items:,} items"
            yield [f"HellaSwag (per token) after step {record['step']}", share]
    yield ["the whole call, from start to end", f"{value['seconds']:.0f} s"]
    yield ["the last sample", as_code(value["sample"][:LONGEST_SAMPLE])]


def as_code(text: str) -> str:
    """A model's text, of which nothing is read as Markdown.

    >>> as_code("*a* `b`" + chr(0))
    "`*a* 'b'�`"
    """
    plain = "".join(letter if letter.isprintable() or letter.isspace() else "�" for letter in text)
    return f"`{plain.replace('`', chr(39))}`"


def resume(title: str, value: Value) -> Iterator[Cells]:
    """Bit-equal, or how far apart."""
    for name, key in (("weights", "weights_difference"), ("optimizer's state", "state_difference")):
        yield [name, far(value[key], "bit-equal")]
    yield ["losses of the steps after the checkpoint", far(value["loss_difference"], "equal")]


def far(difference: float, equal: str) -> str:
    """
    >>> far(0.0, "bit-equal"), far(0.00012, "bit-equal")
    ('bit-equal', '1.2e-04 at most')
    """
    return f"{difference:.1e} at most" if difference else equal


def logits(title: str, value: Value) -> Iterator[Cells]:
    """Each side against transformers in fp32."""
    for side in value["sides"]:
        yield [side["side"], f"{side['largest']:.1e}", f"{side['mean']:.1e}", f"{side['same_best']:.2%}"]


def generation(title: str, value: Value) -> Iterator[Cells]:
    """Ids a second of each side and number of texts."""
    for line in value["lines"]:
        yield [line["side"], str(line["batch"]), f"{line['ids_per_s']:,.1f}", f"{line['ratio']:.2f}"]
    if value["compiler_failure"]:
        yield [f"not compiled: {value['compiler_failure']}"]


def ranks(title: str, value: Value) -> Iterator[Cells]:
    """Both ways, and what communication takes."""
    for way, name in (("together", "gradients summed"), ("apart", "each its own (`no_sync`)")):
        one = value[way]
        rate, each = one["tokens_per_second"], one["tokens_per_second_of_a_rank"]
        yield [
            f"{value['ranks']} ranks, {name}",
            f"{one['ms_per_step']:,.1f}",
            f"{rate:,.0f}",
            f"{each:,.0f}",
        ]
    yield [
        "communication",
        f"{value['communication_ms']:,.1f}",
        f"{value['communication_share']:.1%} of a step",
    ]


def attention(title: str, value: Value) -> Iterator[Cells]:
    """Milliseconds and memory of each way at each length."""
    for way in value["ways"]:
        for record in way["lengths"]:
            row = [way["title"], f"{record['length']:,}"]
            if "skipped" in record:
                yield [*row, f"skipped: {record['skipped']}"]
            else:
                yield [*row, f"{record['ms']:.2f}", f"{record['memory_bytes'] / 1e6:,.0f} MB"]


RATES = ("ms/step", "tokens/s", "MFU", "of limit")
OURS = ("step", *RATES, "peak memory", "first step", "compiled")
BY_NAME = {part.name: part for part in PARTS}

SECTIONS = [
    Section("Limits, measured", [BY_NAME["machine"]], ("", "at best"), machine),
    Section(
        "The ladder",
        [BY_NAME["ladder"]],
        ("rung", *RATES, "ratio", "peak memory", "first step"),
        rungs,
        "GPT-2 124M, 16 x 1024 tokens a step. *MFU* is against the data sheet's peak in bf16, *of limit* against the "
        "best matrix product measured here.",
    ),
    Section("Our step by micro-batch", BATCHES, OURS, ours),
    Section("Compiled in one piece or by the block", PIECES, OURS, ours),
    Section("Sizes", MODELS, OURS, ours),
    Section(
        "Precisions, and the compiler's tuning",
        CHOICES,
        OURS,
        ours,
        "To be read against the row 124M above, which has the same batch in bf16.",
    ),
    Section("Several GPUs", [BY_NAME["ranks"]], ("", "ms/step", "tokens/s", "a rank"), ranks),
    Section(
        "A step by kernel",
        [BY_NAME["kernels"]],
        ("kernel", "calls", "ms", "share"),
        kernels,
        "GPT-2 124M, 64 x 1024 tokens, ours, compiled. Where all kernels take less than the step does, the GPU waited.",
    ),
    Section(
        "The route",
        [BY_NAME["route"]],
        ("", "GPT-2 124M on Python's documentation, 40 steps"),
        route,
    ),
    Section(
        "Resume",
        [BY_NAME["resume"]],
        ("", "8 steps against 4 and then 4 more"),
        resume,
    ),
    Section(
        "Logits",
        [BY_NAME["logits"]],
        ("against transformers in fp32", "largest difference", "mean", "same best id"),
        logits,
        "GPT-2 124M's shape with its first weights, 4 x 1024 random ids.",
    ),
    Section(
        "Writing",
        [BY_NAME["generation"]],
        ("", "texts", "ids/s", "ratio"),
        generation,
        "GPT-2 124M's shape, a prompt of 64 ids, 192 new ones, greedy. The ratio is against transformers in its faster "
        "precision.",
    ),
    Section(
        "Attention, forward and backward", [BY_NAME["attention"]], ("way", "T", "ms", "memory"), attention
    ),
]
