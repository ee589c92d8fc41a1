"""Where a run stands beside llm.c's GPT-2 124M on FineWeb: on track, ahead or off, since when, and what makes it so."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from myna.evaluate.behaviour import Finding, Tone, find_spikes
from myna.evaluate.curves import Curves, Series, token_count
from myna.parsing import number
from myna.reference_curves import LLMC_LOSSES, LLMC_RECIPE, LLMC_STEP_TOKENS, llmc_steps
from myna.references import ON_TRACK_TOKENS, OTHER_TEXT_NATS, SAME_TEXT_NATS, curve_reference

OTHER_SHARE = 0.1  # a setting that differs by more is named
NEARLY_ALL = 0.97  # of llm.c's tokens: its loss has come to rest by then
TOKENS = LLMC_STEP_TOKENS * np.array(llmc_steps(), dtype=np.float64)
LOSSES = np.array(LLMC_LOSSES)
MARKS: dict[int, tuple[str, Tone]] = {0: ("On track", "good"), 1: ("Off", "bad"), -1: ("Ahead", "odd")}

RULES = (
    f"On track: the validation loss is within {SAME_TEXT_NATS} nats of llm.c's at the same tokens, where the "
    f"validation text is the same, llm.c's own file. It is within {OTHER_TEXT_NATS} where the text is another sample "
    "of FineWeb. In the opening, where the loss falls steeply, a run is also on track while it is within "
    f"{ON_TRACK_TOKENS:.0%} of its tokens. Two evaluations in a row make a run off or ahead. The comparison begins at "
    "131M tokens, with llm.c's first validation after the start.",
)


@dataclass(frozen=True)
class Standing:
    """Where a run stands at its last evaluation.

    Attributes:
        sign: 1 off (a higher loss), -1 ahead, 0 on track.
        since: the step of the first evaluation from which on that is so.
        from_start: that is the first evaluation that compares.
        before: the stretches before, off or ahead, as (sign, first step, last step).
        difference: the loss less llm.c's, nats.
        first_difference: the same at `since`.
        tokens: where the run is.
        llmc_tokens: where llm.c's run had the same loss; None where it never had.
        llmc_loss: at the same tokens.
    """

    sign: int
    since: int
    from_start: bool
    before: list[tuple[int, int, int]]
    difference: float
    first_difference: float
    tokens: float
    llmc_tokens: float | None
    llmc_loss: float


def differences(curves: Curves) -> Series:
    """The validation losses less llm.c's at the same tokens, nats; empty before the first that compares."""
    # Between the start and llm.c's first evaluation nobody knows its curve.
    val = curves.val[(curves.val.tokens >= TOKENS[1]) & (curves.val.tokens <= TOKENS[-1])]
    return Series(val.steps, val.tokens, val.values - np.interp(val.tokens, TOKENS, LOSSES))


def standing(curves: Curves, tolerance: float) -> Standing | None:
    """Where a run is on track, off or ahead; None before its first evaluation that compares.

    Args:
        tolerance: nats within which a run is on track.
    """
    apart = differences(curves)
    if not len(apart):
        return None
    theirs = np.interp(apart.tokens, TOKENS, LOSSES)
    earlier = np.interp(apart.tokens / (1 + ON_TRACK_TOKENS), TOKENS, LOSSES)
    later = np.interp(apart.tokens * (1 + ON_TRACK_TOKENS), TOKENS, LOSSES)
    difference = apart.values
    off = difference > np.maximum(tolerance, earlier - theirs)
    ahead = difference < -np.maximum(tolerance, theirs - later)
    stretches = _stretches(off.astype(int) - ahead.astype(int))
    sign, first, _ = stretches[-1]
    last = float(difference[-1] + theirs[-1])
    reached = LOSSES[1] >= last >= LOSSES[-1]
    return Standing(
        sign=sign,
        since=int(apart.steps[first]),
        from_start=first == 0,
        before=[(s, int(apart.steps[a]), int(apart.steps[b])) for s, a, b in stretches[:-1] if s],
        difference=float(difference[-1]),
        first_difference=float(difference[first]),
        tokens=float(apart.tokens[-1]),
        llmc_tokens=float(np.interp(-last, -LOSSES, TOKENS)) if reached else None,
        llmc_loss=float(theirs[-1]),
    )


def _stretches(signs: np.ndarray) -> list[tuple[int, int, int]]:
    """Neighbours of equal sign as (sign, first, last). One that stands alone between others counts as 0.

    >>> _stretches(np.array([1, 0, 1, 1, 0, -1]))
    [(0, 0, 1), (1, 2, 3), (0, 4, 5)]
    >>> _stretches(np.array([1]))
    [(1, 0, 0)]
    """
    around = np.concatenate([[0], signs, [0]])
    alone = (around[:-2] != signs) & (around[2:] != signs)
    calm = np.where(alone, 0, signs) if len(signs) > 1 else signs
    starts = [0, *(np.flatnonzero(np.diff(calm)) + 1).tolist(), len(calm)]
    return [(int(calm[first]), first, end - 1) for first, end in itertools.pairwise(starts)]


def against_llmc(curves: Curves) -> Finding | None:
    """On track, ahead or off; None where llm.c's curve doesn't apply."""
    reference = curve_reference(curves.recipe)
    if reference.tolerance is None:
        return None
    found = standing(curves, reference.tolerance)
    if found is None:
        early = "llm.c's run was first validated after 131M tokens, and no validation of this run compares with it yet."
        return Finding("Too early to compare", early)
    mark, tone = MARKS[found.sign]
    parts = [f"{_difference(found)} A run within {reference.tolerance} nats is on track. {reference.why}"]
    if found.sign:
        where = (
            "since the first evaluation that compares" if found.from_start else f"since step {found.since:,}"
        )
        parts.append(f"It is {mark.lower()} {where}{_change(found)}.")
    for sign, first, last in found.before:
        parts.append(f"It was {MARKS[sign][0].lower()} from step {first:,} to step {last:,}.")
    if not found.sign and found.tokens >= NEARLY_ALL * TOKENS[-1]:
        parts.append("That is the length of llm.c's whole run: its curve is reproduced.")
    return Finding(mark, " ".join(parts), tone, _causes(found, curves))


def _difference(found: Standing) -> str:
    text = (
        f"The validation loss {found.llmc_loss + found.difference:.4f} after {token_count(found.tokens)} tokens is "
        f"{abs(found.difference):.4f} nats {'above' if found.difference >= 0 else 'below'} llm.c's "
        f"{found.llmc_loss:.4f} at the same tokens."
    )
    if not found.sign or found.llmc_tokens is None:
        return text
    lag = found.tokens - found.llmc_tokens
    apart = f"{token_count(abs(lag))} tokens {'behind' if lag > 0 else 'ahead'}"
    return f"{text} llm.c's run was there after {token_count(found.llmc_tokens)}: this one is {apart}."


def _change(found: Standing) -> str:
    """Whether the distance grows or shrinks, where it has changed by more than a third."""
    now, then = abs(found.difference), abs(found.first_difference)
    if 3 / 4 * then <= now <= 4 / 3 * then:
        return ""
    return f", and the distance {'grows' if now > then else 'shrinks'}: it was {then:.4f} nats then"


def _causes(found: Standing, curves: Curves) -> list[str]:
    """What usually makes a run stand so; first what this one's own records say."""
    if not found.sign:
        return []
    other = other_settings(curves.recipe)
    causes = [f"its recipe, which differs: {', '.join(other)}"] if other else []
    if found.sign < 0:
        return [
            *causes,
            "a shorter schedule, whose learning rate has come down already",
            "validation text that was trained on too, or that is easier",
        ]
    if found.from_start:
        return [
            *causes,
            "a learning rate or a warmup that does not fit the batch",
            "initial weights: their deviation is 0.02, and that of residual projections 0.02 / sqrt(2 layers)",
            "text that is not FineWeb, or tokens that are not GPT-2's",
        ]
    jumps = [spike.step for spike in find_spikes(curves.train) if spike.first <= found.since]
    causes += [f"the spike at step {jumps[-1]:,}"] if jumps else []
    return [
        *causes,
        "a resume with other settings",
        "text that repeats, or changes its kind",
        "a learning rate that came down too early, or not at all",
    ]


def other_settings(recipe: Mapping[str, Any]) -> list[str]:
    """The settings in which a recipe differs from llm.c's by over a tenth, each with both values.

    >>> other_settings({"learning_rate": 3e-4, "warmup_steps": 715})
    ['learning_rate 0.0003 (llm.c: 0.0006)']
    """
    options = recipe.get("optimizer_options")
    given = {**(options if isinstance(options, dict) else {}), **recipe}
    steps, batch = number(recipe, "steps"), number(recipe, "batch_tokens")
    if steps and batch and not number(recipe, "batch_ramp_tokens"):
        given["tokens in all"] = steps * batch
    found = []
    for name, usual in {**LLMC_RECIPE, "tokens in all": float(TOKENS[-1])}.items():
        if isinstance(usual, str):
            if str(given.get(name, usual)) != usual:
                found.append(f"{name} {given[name]} (llm.c: {usual})")
            continue
        value = number(given, name)
        # What is 0 there is a share, and differs where it is over a tenth.
        if value is not None and abs(value - usual) > OTHER_SHARE * (abs(usual) or 1.0):
            found.append(f"{name} {_setting(value)} (llm.c: {_setting(usual)})")
    return found


def _setting(value: float) -> str:
    return token_count(value) if value >= 1e6 else f"{value:g}"
