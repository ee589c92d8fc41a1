"""What a run's own curves tell, without any other model: each remark follows from one stated rule.

The rules are in `RULES`, in the words that the report shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from myna.evaluate.curves import Curves, Series, token_count
from myna.spikes import LEAST_NATS, LIMIT, WINDOW_STEPS, RunningLoss

RECENT_SHARE = 0.2
FLAT_NATS = 0.01
LEAST_EVALUATIONS = 4
OPENING_SHARE = 0.2
APART_NATS = 0.05
OVERFIT_NATS = 0.02
SPREAD_ERRORS = 3.0
NEAR_SHARE, LEAST_NEAR_STEPS = 0.01, 10
JOINED_STEPS = 10
RISE_NATS, RISE_ERRORS = 0.25, 5.0
BLOCK_SHARE, LEAST_BLOCK_STEPS = 0.02, 20
SKIPPED_SHARE = 0.01
WAIT_SHARE = 0.05

RULES = (
    f"Falling or flat: a straight line through the last {RECENT_SHARE:.0%} of the tokens, and at least "
    f"{LEAST_EVALUATIONS} evaluations. The loss falls where the line drops by {FLAT_NATS} nats or more, and by two of "
    "its standard errors. Where there are too few evaluations, the rule takes the training loss.",
    "Training and validation part: from some evaluation to the last one validation gained less than half of what "
    f"training gained, and over {APART_NATS} nats less. Overfitting: validation rose by over {OVERFIT_NATS} nats above "
    "its lowest value, while training fell by as much. Both hold only where the gap between the two losses grew by "
    f"over {SPREAD_ERRORS:g} of its standard errors, so the noise of small batches is no parting. The training loss at "
    "an evaluation is the mean over the steps around it; its standard error comes from how much neighbouring steps "
    f"differ. The first {OPENING_SHARE:.0%} of the tokens are not judged.",
    f"A spike: a training loss over {LIMIT:g} deviations, and at least {LEAST_NATS} nats, above the running mean of "
    f"about {WINDOW_STEPS} steps. Training warns by the same rule. Spikes within {JOINED_STEPS} steps are one.",
    f"A rise: the median training loss of {BLOCK_SHARE:.0%} of the steps (at least {LEAST_BLOCK_STEPS}) lies over "
    f"{RISE_NATS} nats above an earlier one, and over {RISE_ERRORS:g} of its standard errors. Spikes are too short for "
    "that.",
    f"Skipped updates are named where they are over {SKIPPED_SHARE:.0%} of the steps: fp16's scaler skips a few by "
    "design.",
    f"Waits for input are named where they take over {WAIT_SHARE:.0%} of the time, without the first step.",
)

Tone = Literal["good", "odd", "bad", "plain"]


@dataclass(frozen=True)
class Finding:
    """One thing that a report says of a run.

    Attributes:
        mark: it, in a word or two.
        text: it, in sentences, with its numbers.
        tone: whether that is as it is hoped for ("good"), worth a look ("odd"), a fault ("bad"), or just so ("plain").
        causes: what usually makes it so.
    """

    mark: str
    text: str
    tone: Tone = "plain"
    causes: Sequence[str] = ()


def behaviour(curves: Curves) -> list[Finding]:
    """All that the rules say of a run."""
    found = (
        trend(curves),
        rise(curves),
        parting(curves),
        spikes(curves),
        broken_steps(curves),
        waits(curves),
    )
    return [finding for finding in found if finding is not None]


def trend(curves: Curves) -> Finding:
    """Whether the loss still falls."""
    name, series = "validation", _recent(curves.val)
    if len(series) < LEAST_EVALUATIONS:
        name, series = "training", _recent(curves.train)
    if len(series) < LEAST_EVALUATIONS:
        return Finding("Too short to judge", f"There are fewer than {LEAST_EVALUATIONS} losses.")
    change, error = _line(series)
    over = f"over the last {token_count(series.tokens[-1] - series.tokens[0])} tokens"
    if abs(change) < FLAT_NATS or abs(change) < 2 * error:
        return Finding(
            "Flat", f"The {name} loss changed by {change:+.4f} nats {over}, which is no clear change."
        )
    if change > 0:
        causes = (
            "a learning rate that is too high",
            "a spike that it has not come back from",
            "overfitting, where the training loss still falls",
        )
        return Finding("Rising", f"The {name} loss rose by {change:.4f} nats {over}.", "bad", causes)
    more = " It was still falling at the end, so a longer run may end lower." if curves.is_finished else ""
    return Finding("Still falling", f"The {name} loss fell by {-change:.4f} nats {over}.{more}", "good")


def _recent(series: Series) -> Series:
    """The last part, and at least the fewest points that are judged."""
    if not len(series):
        return series
    first = np.searchsorted(series.tokens, (1 - RECENT_SHARE) * series.tokens[-1])
    return series[max(0, min(int(first), len(series) - LEAST_EVALUATIONS)) :]


def _line(series: Series) -> tuple[float, float]:
    """How far the least-squares line goes from the first point to the last, and the standard error of that."""
    x = (series.tokens - series.tokens.mean()) / (series.tokens[-1] - series.tokens[0])
    slope = float((x * series.values).sum() / (x * x).sum())
    rest = series.values - series.values.mean() - slope * x
    return slope, float(np.sqrt((rest * rest).sum() / (len(x) - 2) / (x * x).sum()))


def rise(curves: Curves) -> Finding | None:
    """A training loss that went up for longer than a spike; None where it did not."""
    train = curves.train
    size = max(LEAST_BLOCK_STEPS, round(BLOCK_SHARE * len(train)))
    count = len(train) // size
    if count < 2:
        return None
    blocks = train.values[: count * size].reshape(count, size)
    medians = np.median(blocks, axis=1)
    before = np.minimum.accumulate(medians)
    high = int((medians - before).argmax())
    low = int(medians[: high + 1].argmin())
    height = medians[high] - medians[low]
    # Neighbouring steps differ by their noise: half of such differences are under 0.954 deviations. A median's error
    # is sqrt(pi / 2) times a mean's.
    noise = np.median(np.abs(np.diff(blocks, axis=1)), axis=1) / 0.954
    errors = np.sqrt(np.pi / 2 / size) * noise
    if height <= max(RISE_NATS, RISE_ERRORS * float(np.hypot(errors[low], errors[high]))):
        return None
    steps = train.steps[: count * size].reshape(count, size)
    back = np.flatnonzero(medians[high:] <= medians[low])
    text = (
        f"The training loss rose by {height:.4f} nats, from {medians[low]:.4f} at step {steps[low, -1]:,} to "
        f"{medians[high]:.4f} at step {steps[high, -1]:,}. "
    )
    text += f"It was back at step {steps[high + back[0], -1]:,}." if len(back) else "It has not come back."
    causes = ("a learning rate that is too high", "too little warmup", "text of another kind")
    return Finding("A long rise", text, "odd" if len(back) else "bad", causes)


def parting(curves: Curves) -> Finding | None:
    """Whether validation and training loss part; None where either is missing."""
    val = curves.val
    around = np.array([_train_loss_around(curves, int(step)) for step in val.steps]).reshape(-1, 2)
    judged = np.isfinite(around[:, 0]) & (val.tokens >= OPENING_SHARE * curves.last_tokens)
    val, (train, errors) = val[judged], around[judged].T
    if len(val) < 2:
        return None
    now = f"Validation lies {val.values[-1] - train[-1]:+.4f} nats from training"
    causes = (
        "too many passes over too little text",
        "too little dropout or weight decay",
        "too large a network",
    )
    # From each evaluation to the last one: what training has gained, and what validation has.
    gained, val_gained = train - train[-1], val.values - val.values[-1]
    clear = gained - val_gained > SPREAD_ERRORS * np.hypot(errors, errors[-1])
    lowest = int(val.values.argmin())
    rise, fall = -val_gained[lowest], gained[lowest]
    if rise > OVERFIT_NATS and fall > OVERFIT_NATS and clear[lowest]:
        text = (
            f"Since step {val.steps[lowest]:,} the validation loss rose by {rise:.4f} nats from its lowest value, "
            f"{val.values[lowest]:.4f}, and the training loss fell by {fall:.4f}. {now}. The checkpoint nearest to "
            "that step is the better model."
        )
        return Finding("Overfitting", text, "bad", causes)
    apart = np.flatnonzero(clear & (gained - val_gained > APART_NATS) & (val_gained < gained / 2))
    if not len(apart):
        return Finding("Together", f"{now}, and they have not parted.", "good")
    since = int(apart[0])
    text = (
        f"Training and validation loss part since step {val.steps[since]:,}: since then training fell by "
        f"{gained[since]:.4f} nats, and validation by {val_gained[since]:.4f}. {now}."
    )
    return Finding("Parting", text, "odd", causes)


def _train_loss_around(curves: Curves, step: int) -> tuple[float, float]:
    """The mean training loss around a step, NaN where there is none; and its standard error, 0 where nobody can tell.

    Neighbouring steps differ by their noise: the fall of the loss from one to the next is small beside it.
    """
    steps, near = curves.train.steps, max(LEAST_NEAR_STEPS, round(NEAR_SHARE * curves.last_step))
    first, last = np.searchsorted(steps, step - near), np.searchsorted(steps, step + near, side="right")
    losses = curves.train.values[first:last]
    if not len(losses):
        return float("nan"), 0.0
    if len(losses) < 3:
        return float(losses.mean()), 0.0
    return float(losses.mean()), float(np.sqrt((np.diff(losses) ** 2).mean() / 2 / len(losses)))


@dataclass(frozen=True)
class Spike:
    """Steps whose loss jumps: the first, the last, and of the highest its step, its loss and the mean before it."""

    first: int
    last: int
    step: int
    loss: float
    mean: float


def find_spikes(train: Series) -> list[Spike]:
    """The spikes of a training loss, by the rule of `myna.spikes`."""
    running, found = RunningLoss(), list[Spike]()
    for step, loss in zip(train.steps.tolist(), train.values.tolist(), strict=True):
        if loss > running.limit():
            one = Spike(step, step, step, loss, running.mean)
            if found and step - found[-1].last <= JOINED_STEPS:
                before = found.pop()
                high = max(before, one, key=lambda spike: spike.loss)
                one = Spike(before.first, step, high.step, high.loss, high.mean)
            found.append(one)
        running.take(loss)
    return found


def spikes(curves: Curves) -> Finding | None:
    """The jumps of the training loss; None where there are too few steps to judge."""
    if len(curves.train) <= WINDOW_STEPS:
        return None
    found = find_spikes(curves.train)
    if not found:
        return Finding("No spikes", f"No training loss jumped in {len(curves.train):,} steps.", "good")
    high = max(found, key=lambda spike: spike.loss - spike.mean)
    text = (
        f"The training loss jumped {_times(len(found))}, last at step {found[-1].first:,}. The highest jump: "
        f"{high.loss:.4f} at step {high.step:,}, {high.loss - high.mean:.4f} nats above the mean before it. It lasted "
        f"{high.last - high.first + 1:,} step{'s' * (high.last > high.first)}."
    )
    causes = ("a learning rate that is high for the batch", "odd documents", "fp16, or too little warmup")
    return Finding(f"{len(found):,} spike{'s' * (len(found) > 1)}", text, "odd", causes)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def broken_steps(curves: Curves) -> Finding | None:
    """Losses that are no finite numbers, and updates that were skipped; None where there are none to name."""
    if curves.not_finite:
        times = _times(len(curves.not_finite))
        text = f"The loss was no finite number at step {curves.not_finite[0]:,} ({times} in all)."
        causes = ("a learning rate that is too high", "fp16", "a damaged checkpoint or faulty hardware")
        return Finding("Not a number", text, "bad", causes)
    skipped = curves.measures["skipped"].values
    if not len(skipped) or skipped.mean() <= SKIPPED_SHARE:
        return None
    steps = curves.measures["skipped"].steps[skipped > 0]
    text = (
        f"fp16 skipped {len(steps):,} updates, {skipped.mean():.1%} of the steps, last at step {steps[-1]:,}: their "
        "gradient was not finite."
    )
    return Finding(
        "Skipped updates", text, "odd", ("a learning rate that is too high", "fp16: bf16 skips none")
    )


def waits(curves: Curves) -> Finding | None:
    """How long steps waited for their batch; None where nobody noted it."""
    wait, seconds = curves.measures["input_wait_seconds"], curves.measures["seconds"]
    if len(wait) < 2 or len(wait) != len(seconds) or not seconds.values[1:].sum() > 0:
        return None
    share = wait.values[1:].sum() / seconds.values[1:].sum()
    if share <= WAIT_SHARE:
        return Finding("Input keeps up", f"Steps waited for their batch {share:.1%} of the time.", "good")
    causes = ("a slow disk or network mount", "too few processor cores beside the accelerator")
    return Finding("Waits for input", f"Steps waited for their batch {share:.1%} of the time.", "odd", causes)
