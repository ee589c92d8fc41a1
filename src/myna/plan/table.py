"""A plan as text: one run in full, or many in a table."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from myna.plan.run import Plan
from myna.settings import flag

WIDTH = 110  # columns of a list of prose


@dataclass(frozen=True)
class Refused:
    """A combination that cannot be."""

    recipe: str
    tokens: float
    gpus: int
    why: str


def report(plan: Plan) -> list[str]:
    """Lines: the answer, then what it is made of, then what it stands on."""
    return [
        headline(plan),
        *_other_mfu(plan),
        "",
        *_section("run", _run(plan)),
        *_section("memory of a GPU, computed", _memory(plan)),
        *_section("what the GPUs send in a step, computed", _traffic(plan)),
        *_section("corpus, checkpoints", _bytes(plan)),
        *_section("money", _money(plan)),
        *assumed(plan),
    ]


def headline(plan: Plan) -> str:
    """Hours and money in a line."""
    gpus = f"{plan.gpus:,} {plan.assumptions.gpu}"
    short = "" if plan.fit.fits is not False else ". IT DOES NOT FIT the memory of a GPU"
    return f"{plan.recipe.name} on {gpus}: {duration(plan.hours)}, {money(plan.usd)}{short}"


def _other_mfu(plan: Plan) -> list[str]:
    default = plan.assumptions.default("mfu")
    if plan.assumptions.numbers["mfu"].kind != "given" or default is None:
        return []
    other = plan.with_mfu(default)
    return [f"with the default MFU of {default:.0%}: {duration(other.hours)}, {money(other.usd)}"]


def _run(plan: Plan) -> list[tuple[str, str]]:
    recipe, setting = plan.recipe, plan.fit.setting
    epochs = "" if plan.epochs is None else f", {plan.epochs:.2f} epochs of {', '.join(recipe.corpus)}"
    at_once = f"{setting.micro_batch} x {recipe.sequence_length} tokens at once on a GPU"
    if setting.accumulate > 1:
        at_once += f", {setting.accumulate} times a step"
    step = f"{_ms(plan.compute_seconds)} of arithmetic"
    if plan.update_seconds is not None:
        step += f", {_ms(plan.update_seconds)} of updating the weights"
    if plan.gpus > 1:
        step += f", {_ms(plan.waited_seconds)} of waiting for other GPUs"
    rows = [
        ("parameters", f"{plan.shape.parameters:,}"),
        ("tokens", f"{plan.tokens:,} in {recipe.steps:,} steps of {recipe.batch_tokens:,}{epochs}"),
        ("FLOPs", f"{plan.flops:.3g}, {plan.shape.flops_per_token:.4g} a token"),
        ("batch", at_once),
        ("step", step),
    ]
    return [
        *rows,
        ("training", duration(plan.train_hours)),
        ("evaluation", f"{duration(plan.evaluation_hours)}: {plan.evaluations:,} validations, HellaSwag"),
    ]


def _memory(plan: Plan) -> list[tuple[str, str]]:
    memory, setting = plan.assumptions.get("memory_gb"), plan.fit.setting
    of = "" if memory is None else f" of {memory:g}"
    how = "FSDP" if setting.sharded else "DDP" if plan.gpus > 1 else "no distribution"
    if setting.recompute:
        how += " with --activation-checkpointing"
    return [
        *((name, f"{size:.2f} GB") for name, size in plan.fit.gb.items()),
        ("together", f"{plan.fit.total_gb:.2f}{of} GB"),
        ("needs", f"{how}: {plan.fit.why}"),
    ]


def _traffic(plan: Plan) -> list[tuple[str, str]]:
    if not plan.traffic:
        return [("", "nothing")]
    rows, busy = [], plan.step_seconds - plan.waited_seconds
    for one in plan.traffic:
        exposed, most = (f"{seconds / (busy + seconds):.1%}" for seconds in (one.waited, one.seconds))
        sent = f"{one.gb:.2f} GB a GPU at {one.gb_per_s:.0f} GB/s: {_ms(one.seconds)}"
        said = f"exposed: {exposed} of the step, {most} if nothing overlapped with arithmetic"
        rows.append(({"nvlink": "NVLink", "pcie": "PCIe"}[one.link], f"{sent}; {said}"))
    return [*rows, ("counted", f"{rows[0][0]}, with overlap")]


def _bytes(plan: Plan) -> list[tuple[str, str]]:
    corpus = plan.corpus
    kept = (
        "checkpoints",
        f"{size(plan.checkpoints * plan.checkpoint_bytes)}: {plan.checkpoints:,} of {size(plan.checkpoint_bytes)}, "
        "all kept, written in the background",
    )
    if corpus is None:
        return [("corpus", f"{', '.join(plan.recipe.corpus)}: its size is not known here"), kept]
    cores = plan.assumptions["prepare_cores"]
    return [
        ("download", f"{size(corpus.download_bytes)}, {duration(corpus.download_hours)}"),
        (
            "text",
            f"{size(corpus.text_bytes)}, tokenized in {duration(corpus.tokenize_hours)} on {cores:g} cores",
        ),
        ("shards", f"{size(corpus.shard_bytes)}: {corpus.tokens:,.0f} tokens of {corpus.name}"),
        kept,
    ]


def _money(plan: Plan) -> list[tuple[str, str]]:
    rows = [("GPUs", f"{money(plan.gpu_usd)}: {plan.hours * plan.gpus:,.1f} GPU-hours")]
    if plan.prepare_usd is not None:
        rows.append(("preparation", money(plan.prepare_usd)))
    rows.append(("storage", f"{money(plan.storage_usd)} for {months(plan.assumptions['months'])}"))
    return [*rows, ("together", money(plan.usd))]


def assumed(plan: Plan) -> list[str]:
    """What a plan stands on: a line for each number, with its flag."""
    lines = [f"assumptions ({plan.assumptions.precision}); each is a flag"]
    for name, number in plan.assumptions.numbers.items():
        value = "not known" if number.value is None else f"{number.value:g}"
        said = number.kind if number.kind == "given" else f"{number.kind}: {number.source}"
        lines.append(f"  {flag(name):<27} {value:>9} {number.unit}; {said}")
    measured = [flag(name) for name, number in plan.assumptions.numbers.items() if number.kind == "measured"]
    said = (
        f"Measured by this project: {', '.join(measured) or 'nothing'}. All else is published or assumed, and every "
        "result above is computed from it. Nothing was measured on a GPU. An MFU of a whole run, such as llm.c's, "
        "has the waiting in it already, so a plan with it counts the waiting twice. Starting, compiling and the "
        "latency of links are not counted, and a GPU with few tokens at once does not reach the MFU. The update of the "
        "weights is counted for AdamW alone, at the memory's full bandwidth."
    )
    return [*lines, *textwrap.wrap(said, WIDTH)]


def many(rows: Sequence[Plan | Refused]) -> list[str]:
    """A table: a line for each plan, then what they all stand on."""
    head = ("recipe", "tokens", "GPUs", "needs", "micro-batch", "exposed", "time", "USD", "stored")
    cells = [head, *map(_row, rows)]
    widths = [max(len(row[column]) for row in cells if len(row) == len(head)) for column in range(len(head))]
    lines = []
    for row in cells:
        aligned = [
            cell.ljust(width) if column in (0, 3) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*aligned[: len(row)], *row[len(aligned) :]]).rstrip())
    plans = [row for row in rows if isinstance(row, Plan)]
    return [*lines, "", *assumed(plans[0])] if plans else lines


def _row(row: Plan | Refused) -> tuple[str, ...]:
    if isinstance(row, Refused):
        return (row.recipe, count(row.tokens), f"{row.gpus:,}", row.why)
    setting = row.fit.setting
    how = "FSDP" if setting.sharded else "DDP" if row.gpus > 1 else "one GPU"
    how += ", recompute" if setting.recompute else ""
    exposed = row.waited_seconds / row.step_seconds
    stored = row.checkpoints * row.checkpoint_bytes + (row.corpus.shard_bytes if row.corpus else 0)
    return (
        row.recipe.name,
        count(row.tokens),
        f"{row.gpus:,}",
        "does not fit" if row.fit.fits is False else how,
        str(setting.micro_batch),
        f"{exposed:.1%}",
        duration(row.hours),
        "-" if row.usd is None else f"{row.usd:,.0f}",
        size(stored),
    )


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [title, *(f"  {name:<{width}}  {value}" for name, value in rows), ""]


def duration(hours: float) -> str:
    """
    >>> duration(0.75), duration(0.001), duration(30), duration(24 * 800)
    ('45.0 minutes', '3.6 seconds', '30.0 hours', '800 days')
    """
    for unit, least, digits in (("days", 72, 0), ("hours", 1.5, 1), ("minutes", 1 / 60, 1)):
        if hours >= least:
            per = {"days": 24, "hours": 1, "minutes": 1 / 60}[unit]
            return f"{hours / per:,.{digits}f} {unit}"
    return f"{hours * 3600:.1f} seconds"


def money(usd: float | None) -> str:
    """
    >>> money(14.96), money(0.423), money(None)
    ('15.0 USD', '0.42 USD', 'USD not known (--usd-per-gpu-hour)')
    """
    if usd is None:
        return "USD not known (--usd-per-gpu-hour)"
    return f"{usd:,.{2 if usd < 10 else 1 if usd < 100 else 0}f} USD"


def size(n_bytes: float) -> str:
    """
    >>> size(1.5e9), size(2.6e12), size(20e9)
    ('1.50 GB', '2.60 TB', '20.0 GB')
    """
    unit, per = next((u for u in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if n_bytes >= u[1]), ("KB", 1e3))
    value = n_bytes / per
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def months(number: float) -> str:
    """
    >>> months(1), months(2.5)
    ('1 month', '2.5 months')
    """
    return f"{number:g} month{'' if number == 1 else 's'}"


def count(tokens: float) -> str:
    """
    >>> count(9_999_745_024), count(1.3e12), count(2_457_600)
    ('10.0B', '1.3T', '2.5M')
    """
    unit, per = next((u for u in (("T", 1e12), ("B", 1e9)) if tokens >= 0.9995 * u[1]), ("M", 1e6))
    return f"{tokens / per:.1f}{unit}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 10 else f"{seconds:,.1f} s"
