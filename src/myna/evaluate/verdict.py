"""Did I reproduce GPT-2? What a run's curves say, in words: beside llm.c's run, GPT-2 and GPT-3, and by themselves.

Which of them a run may be held against, and within how many nats losses count as level, is in `myna.references`.
"""

import numpy as np

from myna.evaluate import against_llmc, behaviour
from myna.evaluate.behaviour import Finding, Tone
from myna.evaluate.curves import Curves
from myna.references import curve_reference, hellaswag_reference, loss_reference

LEVEL_ERRORS = 2.0  # standard errors within which two accuracies count as level

RULES = (
    *against_llmc.RULES,
    "Level with GPT-2: a validation loss within the same nats of GPT-2's on that corpus, and a HellaSwag accuracy "
    f"within {LEVEL_ERRORS:g} standard errors of GPT-2's at that size. Reproduced: level or better in both.",
    *behaviour.RULES,
)


def verdict(curves: Curves) -> list[Finding]:
    """What there is to say of a run, the most important first."""
    if curves.recipe.get("overfit") is True:
        text = "It trained on one batch again and again (--overfit), so nothing here says how well it learns from text."
        return [Finding("One batch alone", text), *behaviour.behaviour(curves)]
    found = (
        reproduced(curves),
        against_llmc.against_llmc(curves),
        against_gpt2(curves),
        against_hellaswag(curves),
        not_compared(curves),
    )
    return [*(finding for finding in found if finding is not None), *behaviour.behaviour(curves)]


def not_compared(curves: Curves) -> Finding | None:
    """Which references don't apply, and why; None where all do."""
    curve, loss = curve_reference(curves.recipe), loss_reference(curves.recipe)
    accuracy = hellaswag_reference(curves.recipe, curves.hellaswag_items)
    if not loss.applies and accuracy.size is None:
        return Finding("No reference applies", f"Because: {loss.why} {accuracy.why}")
    missing = [] if curve.tolerance is not None else [f"With llm.c's run: {curve.why}"]
    missing += [] if loss.applies else [f"With GPT-2's loss: {loss.why}"]
    missing += [] if accuracy.size else [f"On HellaSwag: {accuracy.why}"]
    return Finding("Not compared", " ".join(missing)) if missing else None


def against_gpt2(curves: Curves) -> Finding | None:
    """The validation loss beside GPT-2's; None where it doesn't apply."""
    reference, val = loss_reference(curves.recipe), curves.val
    if reference.value is None or not len(val):
        return None
    difference = float(val.values[-1]) - reference.value
    text = (
        f"The validation loss {val.values[-1]:.4f} is {abs(difference):.4f} nats "
        f"{'above' if difference > 0 else 'below'} that of {reference.label}, {reference.value:.4f}"
    )
    if abs(difference) <= reference.tolerance:
        return Finding(
            "Level with GPT-2's loss", f"{text}. Within {reference.tolerance} nats is level.", "good"
        )
    if difference > 0:
        return Finding("Above GPT-2's loss", f"{text}.", "odd" if curves.is_finished else "plain")
    not_below = np.flatnonzero(val.values >= reference.value - reference.tolerance)
    since = val.steps[not_below[-1] + 1 if len(not_below) else 0]
    return Finding("Below GPT-2's loss", f"{text}, and has been below since step {since:,}.", "good")


def against_hellaswag(curves: Curves) -> Finding | None:
    """The accuracy beside GPT-2's and GPT-3's; None where they don't apply."""
    size = curves.hellaswag_references
    if size is None or not len(curves.hellaswag):
        return None
    name, gpt2, gpt3 = size
    accuracy, error = float(curves.hellaswag.values[-1]), float(curves.hellaswag_errors[-1])
    errors = (accuracy - gpt2) / error if error else 0.0
    text = (
        f"HellaSwag {accuracy:.4f} ± {error:.4f} is {accuracy - gpt2:+.4f} from GPT-2 {name}'s {gpt2:g} "
        f"({errors:+.1f} standard errors), and {accuracy - gpt3:+.4f} from GPT-3's {gpt3:g}, which read 300B tokens."
    )
    if abs(errors) <= LEVEL_ERRORS:
        return Finding("Level with GPT-2 on HellaSwag", text, "good")
    if errors > 0:
        return Finding("Above GPT-2 on HellaSwag", text, "good")
    return Finding("Below GPT-2 on HellaSwag", text, "odd" if curves.is_finished else "plain")


def reproduced(curves: Curves) -> Finding | None:
    """The answer, for a run of one of GPT-2's sizes that was scored on HellaSwag; None for others."""
    size, score = curves.hellaswag_references, curves.hellaswag
    if size is None or not len(score):
        return None
    loss, val = loss_reference(curves.recipe), curves.val
    short = []
    if score.values[-1] < size[1] - LEVEL_ERRORS * curves.hellaswag_errors[-1]:
        short.append("its HellaSwag accuracy is below GPT-2's")
    if loss.value is not None and not (len(val) and val.values[-1] <= loss.value + loss.tolerance):
        short.append("its validation loss is above GPT-2's")
    if short:
        mark: tuple[str, Tone] = ("Not reproduced", "bad") if curves.is_finished else ("Not yet", "plain")
        return Finding(mark[0], f"This is not GPT-2 {size[0]} again: {', and '.join(short)}.", mark[1])
    measured = (
        "HellaSwag accuracy is" if loss.value is None else "HellaSwag accuracy and its validation loss are"
    )
    return Finding("Reproduced", f"Yes. Its {measured} level with GPT-2 {size[0]}'s or better.", "good")
