"""What `myna device` found, as lines of text with the arithmetic shown."""

from collections.abc import Iterator
from typing import Any

from myna.progress import counted


def lines(found: dict[str, Any]) -> list[str]:
    """The machine, its limits, what `auto` takes, and the limits of a step."""
    return [*_machine(found), "", *_limits(found), "", *_choices(found["auto"]), "", *_step(found)]


def si(number: float, unit: str) -> str:
    """
    >>> si(4.48e14, "FLOP"), si(30.1e9, "B/s"), si(512, "B")
    ('448 TFLOP', '30.1 GB/s', '512 B')
    """
    for factor, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= factor:
            return f"{three_figures(number / factor)} {letter}{unit}"
    return f"{three_figures(number)} {unit}"


def seconds(number: float) -> str:
    """
    >>> seconds(492.71), seconds(0.00214)
    ('493 s', '2.14 ms')
    """
    if number < 1:
        return f"{three_figures(1e3 * number)} ms"
    return f"{three_figures(number)} s"


def three_figures(number: float) -> str:
    """
    >>> three_figures(30.123), three_figures(2709.4)
    ('30.1', '2,709')
    """
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def _machine(found: dict[str, Any]) -> Iterator[str]:
    cores = f"{counted(found['threads'], 'thread')} on {counted(found['cores'], 'core')}"
    if "gpu" in found:
        capability = ".".join(map(str, found["capability"]))
        count = f", one of {found['gpus']}" if found["gpus"] > 1 else ""
        yield f"{found['gpu']} (cuda{count}, compute capability {capability}), {si(found['memory_bytes'], 'B')}"
        yield f"processor: {found['processor']}, {cores}"
    else:
        yield f"{found['processor']} ({found['device']}), {cores}, {si(found['memory_bytes'], 'B')} of memory"
    has = [name for name, there in found["instructions"].items() if there]
    lacks = [name for name, there in found["instructions"].items() if not there]
    yield f"instructions: {', '.join(has) or 'none of the known ones'}; not here: {', '.join(lacks) or 'none'}"
    yield f"torch {found['torch']}"


def _limits(found: dict[str, Any]) -> Iterator[str]:
    yield "Measured limits"
    for name, peak in found["peaks"].items():
        what = (
            f"not here: {peak['skipped']}"
            if "skipped" in peak
            else f"{si(peak['flops'], 'FLOP/s')} ({peak['about']})"
        )
        yield f"  {name:<7} {what}"
    yield f"  memory  {si(found['copy_bytes_per_s'], 'B/s')} (a large copy, read and written)"


def _choices(auto: dict[str, Any]) -> Iterator[str]:
    yield "What auto takes here"
    titles = {
        "precision": "precision of training",
        "weights": "weights to write texts",
        "weights_to_score": "weights to score",
        "micro_batch": "micro-batch",
        "compile": "can compile",
    }
    for key, title in titles.items():
        why = f" ({auto[key]['why']})" if "why" in auto[key] else ""
        yield f"  {title:<23} {auto[key]['choice']}{why}"


def _step(found: dict[str, Any]) -> Iterator[str]:
    step = found["step"]
    size, tokens = step["bytes_per_number"], step["tokens"]
    yield (
        f"A step of {step['recipe']} on this one device, in {step['precision']}: {tokens:,} tokens, "
        f"{step['passes']:,} micro-batches of {step['micro_batch']} x {step['sequence_length']}"
    )
    yield (
        f"  arithmetic  {tokens:,} tokens x {si(step['flops_per_token'], 'FLOP')} = {si(step['flops'], 'FLOP')}; "
        f"/ {si(step['flops_per_s'], 'FLOP/s')} = {seconds(step['arithmetic_seconds'])}"
    )
    how = {
        "weights and gradients": f"{step['passes']:,} micro-batches x {si(step['parameters'], '')} weights x "
        f"(2 reads of {size} B + 8 B of gradients)",
        "activations": f"what the blocks keep of {tokens:,} tokens, written and read",
        "logits": f"{tokens:,} tokens x the vocabulary x 4 x {size} B",
        "update": "weights, gradients and the optimizer's state, read and written",
    }
    for name, count in step["bytes"].items():
        yield f"  {'memory' if name == 'weights and gradients' else '':<10}  {si(count, 'B'):>7}  {name}: {how[name]}"
    total = sum(step["bytes"].values())
    yield (
        f"              = {si(total, 'B')}; / {si(step['bytes_per_s'], 'B/s')} = {seconds(step['memory_seconds'])}"
    )
    longest = max(step["arithmetic_seconds"], step["memory_seconds"])
    yield (
        f"  The limit is {step['limit']}: a step takes {seconds(longest)} or more, so at most "
        f"{step['tokens_per_second_at_most']:,.0f} tokens a second."
    )
    kept, has = step["kept_bytes"], found["memory_bytes"]
    room = "" if kept <= has else ", which is more than there is"
    yield f"  Weights, gradients and the optimizer's state take {si(kept, 'B')} of {si(has, 'B')}{room}."
