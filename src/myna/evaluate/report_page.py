"""The report as one page: the verdict, the curves, the samples, the recipe and the machine of one or more runs."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from myna.errors import DataError, MynaError
from myna.evaluate.against_llmc import differences
from myna.evaluate.behaviour import Finding
from myna.evaluate.curves import Curves, Series, final_values, range_of_tokens, smoothed, token_count
from myna.evaluate.picture import shared_line
from myna.evaluate.verdict import RULES, verdict
from myna.html.page import (
    Block,
    Chart,
    Curve,
    Facts,
    Fold,
    Page,
    Part,
    Printed,
    Reference,
    Remark,
    Section,
    SideBySide,
    Table,
    Text,
)
from myna.parsing import read_object, whole
from myna.reference_curves import LLMC_LOSSES, LLMC_STEP_TOKENS, llmc_steps
from myna.references import HELLASWAG_CHANCE, curve_reference, loss_reference, tokenizer_of
from myna.run import Run
from myna.version import version

MOST_POINTS = 800  # of a curve; more than a screen has columns for
SHOWN_SAMPLES, MOST_SAMPLES = 4, 60
MOST_CHARACTERS = 3000  # of a sample
BEYOND = 1.25  # llm.c's curve is drawn as far beyond a run as this
IN_SHORT = (
    "name", "network", "n_layer", "n_head", "n_embd", "block_size", "corpus", "tokenizer", "steps", "batch_tokens",
    "batch_ramp_tokens", "sequence_length", "micro_batch", "optimizer", "learning_rate",
    "final_learning_rate_fraction", "warmup_steps", "dropout", "seed",
)  # fmt: skip
MEASURE_CHARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("learning_rate", {"title": "Learning rate", "format": "significant", "from_zero": True}),
    ("grad_norm", {"title": "Gradient norm", "format": "significant", "logarithmic": True}),
    ("tokens_per_second", {"title": "Throughput, tokens per second", "format": "short", "from_zero": True}),
    ("mfu", {"title": "Model FLOPs utilisation (MFU)", "format": "percent", "from_zero": True}),
)


def report_page(drawn: Sequence[Curves], *, reload_s: int | None = None) -> Page:
    """The page of one or more runs.

    Args:
        reload_s: seconds after which the page reads itself anew, while the runs go on.
    """
    alone = len(drawn) == 1
    sections = [
        Section("Verdict", _verdicts(drawn)),
        Section("Loss", _loss_charts(drawn)),
        *_hellaswag(drawn),
        Section("Training", [SideBySide(_measures(drawn))]),
        *_samples(drawn),
        Section("Recipe", _recipes(drawn)),
        *_environments(drawn),
    ]
    return Page(
        title=drawn[0].name if alone else f"{len(drawn)} runs",
        sections=sections,
        lead=final_values(drawn[0]) if alone else range_of_tokens(drawn),
        foot=f"Written by `myna report`, version {version()}, from recipe.json, metrics.jsonl and samples.jsonl.",
        reload_s=reload_s,
    )


def _verdicts(drawn: Sequence[Curves]) -> list[Block]:
    rules = Fold("How this is judged", [Text("\n\n".join(RULES))])
    if len(drawn) == 1:
        return [*map(_remark, verdict(drawn[0])), rules]
    table = Table(
        ["run", "tokens", "validation loss", "bits per byte", "HellaSwag", "tokens/s"],
        [_final_row(curves) for curves in drawn],
        "the last values of each run",
    )
    return [table, *(Part(curves.name, [_remark(one) for one in verdict(curves)]) for curves in drawn), rules]


def _remark(finding: Finding) -> Remark:
    hint = f"Usual causes: {'; '.join(finding.causes)}." if finding.causes else ""
    return Remark(finding.mark, finding.text, finding.tone, hint)


def _final_row(curves: Curves) -> list[str | int | float | None]:
    def last(series: Series, digits: int) -> str | None:
        return f"{series.values[-1]:.{digits}f}" if len(series) else None

    speed = curves.measures["tokens_per_second"].values
    return [
        curves.name,
        token_count(curves.last_tokens),
        last(curves.val, 4),
        last(curves.bits_per_byte, 3),
        last(curves.hellaswag, 4),
        token_count(float(np.median(speed))) if len(speed) else None,
    ]


def _axes(series: Series) -> dict[str, np.ndarray]:
    return {"tokens": series.tokens, "steps": series.steps}


def _thinned(series: Series, by: Callable[..., np.ndarray]) -> Series:
    """A curve in at most `MOST_POINTS` points, each of a group of neighbours; `by` makes one value of a group's."""
    size = math.ceil(len(series) / MOST_POINTS)
    starts = np.arange(0, len(series), size)
    ends = np.minimum(starts + size, len(series)) - 1
    return Series(series.steps[ends], series.tokens[ends], by(series.values, starts))


def _mean(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) / np.diff([*starts, len(values)])


def _line(series: Series, label: str, colour: int, group: str | None, *, smooth: bool) -> list[Curve]:
    """A curve, and behind it, where it is the only run's, the lowest and the highest of what each point stands for."""
    if not len(series):
        return []
    middle = Series(series.steps, series.tokens, smoothed(series.values)) if smooth else series
    thin = _thinned(middle, _mean)
    curves = [Curve(label, _axes(thin), thin.values, colour, group)]
    if group is None and (smooth or len(thin) < len(series)):
        for name, by in (("low", np.minimum.reduceat), ("high", np.maximum.reduceat)):
            edge = _thinned(series, by)
            curves.append(Curve(name, _axes(edge), edge.values, colour, kind="faint", behind=label))
    return curves


def _dots(
    series: Series, label: str, colour: int, group: str | None, errors: np.ndarray | None = None
) -> list[Curve]:
    if not len(series):
        return []
    return [Curve(label, _axes(series), series.values, colour, group, "dots", errors)]


def _loss_charts(drawn: Sequence[Curves]) -> list[Block]:
    alone = len(drawn) == 1
    curves, bits = list[Curve](), list[Curve]()
    for n, run in enumerate(drawn):
        group = None if alone else run.name
        curves += _line(run.train, "train, smoothed" if alone else "train", n, group, smooth=True)
        curves += _dots(run.val, "validation", n + 1 if alone else n, group)
        bits += _dots(run.bits_per_byte, "", n, run.name)
    notes = [f"Not compared with GPT-2's loss. {why}" for why in _reasons(drawn)]
    line = shared_line(drawn)
    loss = Chart(
        "Loss, nats per token",
        [*curves, *_llmc(drawn)],
        [Reference(line.value, line.words, line.side)] if line else [],
        format="loss",
        least_span=0.1,
        logarithmic=True,
        notes=notes,
    )
    blocks = [loss, *_by_source(drawn)]
    if len({tokenizer_of(run.recipe) for run in drawn}) == 1 or not bits:
        return [*blocks, *_apart(drawn)]
    other = "The runs' tokenizers differ, so their losses per token do not compare. Bits per byte do."
    return [
        *blocks,
        Chart("Bits per byte of the validation text", bits, format="loss", logarithmic=True, notes=[other]),
    ]


def _by_source(drawn: Sequence[Curves]) -> list[Block]:
    """The validation loss of each dataset of a mixture."""
    dots = [
        curve
        for run in drawn
        for colour, (name, series) in enumerate(run.sources.items())
        for curve in _dots(series, name, colour, None if len(drawn) == 1 else run.name)
    ]
    return [Chart("Validation loss of each dataset, nats per token", dots, format="loss")] if dots else []


def _apart(drawn: Sequence[Curves]) -> list[Block]:
    """How far the runs are from llm.c's curve, with the nats of being on track."""
    dots, tolerances = list[Curve](), set[float]()
    for n, run in enumerate(drawn):
        tolerance = curve_reference(run.recipe).tolerance
        if tolerance is not None and len(apart := differences(run)):
            dots += _dots(apart, "", n, run.name)
            tolerances.add(tolerance)
    if not dots:
        return []
    lines = [
        Reference(sign * one, f"{sign * one:+}", "right", sign > 0)
        for one in sorted(tolerances)
        for sign in (1, -1)
    ]
    note = "Between the lines a run is on track; in the opening there is more room. Above is off, below is ahead."
    title = "Validation loss less llm.c's at the same tokens, nats"
    return [Chart(title, dots, lines, format="loss", least_span=0.06, notes=[note])]


def _reasons(drawn: Sequence[Curves]) -> list[str]:
    """Why GPT-2's loss is not beside the curves, each reason once, with its runs where there are several."""
    found: dict[str, list[str]] = {}
    for curves in drawn:
        if not curves.compares_with_gpt2:
            found.setdefault(loss_reference(curves.recipe).why, []).append(curves.name)
    return [why if len(drawn) == 1 else f"{', '.join(names)}: {why}" for why, names in found.items()]


def _llmc(drawn: Sequence[Curves]) -> list[Curve]:
    """llm.c's curve, where it compares with every run."""
    if any(curve_reference(curves.recipe).tolerance is None for curves in drawn):
        return []
    steps = np.array(llmc_steps())
    kept = steps * LLMC_STEP_TOKENS <= BEYOND * max(curves.last_tokens for curves in drawn)
    log = Series(steps[kept], (steps * LLMC_STEP_TOKENS)[kept], np.array(LLMC_LOSSES)[kept])
    return [Curve("llm.c's GPT-2 124M on FineWeb, validation", _axes(log), log.values, None, kind="dashed")]


def _hellaswag(drawn: Sequence[Curves]) -> list[Section]:
    scored = [(n, curves) for n, curves in enumerate(drawn) if len(curves.hellaswag)]
    if not scored:
        return []
    lines = [Reference(HELLASWAG_CHANCE, f"chance: {HELLASWAG_CHANCE}", "right", above=False)]
    for size, gpt2, gpt3 in sorted({row for _, curves in scored if (row := curves.hellaswag_references)}):
        lines += [Reference(gpt2, f"GPT-2 {size}: {gpt2}"), Reference(gpt3, f"GPT-3 {size}: {gpt3}")]
    alone = len(drawn) == 1
    dots = [
        curve
        for n, run in scored
        for curve in _dots(
            run.hellaswag, "accuracy" if alone else "", n, None if alone else run.name, run.hellaswag_errors
        )
    ]
    items = sorted({curves.hellaswag_items for _, curves in scored if curves.hellaswag_items})
    note = [f"{' and '.join(f'{n:,}' for n in items)} items. The band is one standard error to each side."]
    title = "HellaSwag accuracy, mean per token"
    chart = Chart(title, dots, lines, format="loss", least_span=0.04, notes=note if items else [])
    return [Section("HellaSwag", [chart])]


def _measures(drawn: Sequence[Curves]) -> list[Block]:
    charts: list[Block] = []
    for key, about in MEASURE_CHARTS:
        curves = [
            curve
            for n, run in enumerate(drawn)
            if run.measures[key].values.any()  # on a processor nobody knows the peak, and MFU is 0
            for curve in _line(
                run.measures[key], about["title"].split(",")[0] if len(drawn) == 1 else "", n,
                None if len(drawn) == 1 else run.name, smooth=key != "learning_rate",
            )
        ]  # fmt: skip
        if curves:
            charts.append(Chart(curves=curves, **about))
    return charts or [Text("No step has recorded its learning rate, gradient norm or speed.")]


def _samples(drawn: Sequence[Curves]) -> list[Section]:
    parts: list[Block] = []
    for curves in drawn:
        found = _texts(curves)
        if not found:
            continue
        blocks: list[Block] = list(found[:SHOWN_SAMPLES])
        if len(found) > SHOWN_SAMPLES:
            blocks.append(Fold(f"Earlier samples ({len(found) - SHOWN_SAMPLES})", found[SHOWN_SAMPLES:]))
        parts += blocks if len(drawn) == 1 else [Part(curves.name, blocks)]
    return [Section("Samples as training went on", parts)] if parts else []


def _texts(curves: Curves) -> list[Printed]:
    """The newest first; of those that a resume wrote again, the later ones."""
    latest: dict[tuple[int | None, str], str] = {}
    for record in Run(curves.path).samples():
        prompt, text = record.get("prompt"), record.get("text")
        if isinstance(text, str):
            prompt = prompt if isinstance(prompt, str) else ""
            latest[whole(record, "step"), prompt] = f"{prompt}{text}"[:MOST_CHARACTERS]
    newest = sorted(latest.items(), key=lambda one: -(one[0][0] or 0))[:MOST_SAMPLES]
    return [Printed(text, "sample" if step is None else f"step {step:,}") for (step, _), text in newest]


def _recipes(drawn: Sequence[Curves]) -> list[Block]:
    whole_ones = [
        Fold(f"recipe.json of {curves.name}", [Printed(json.dumps(curves.recipe, indent=2), "recipe.json")])
        for curves in drawn
    ]
    if len(drawn) == 1:
        facts = [(name, _plain(drawn[0].recipe[name])) for name in IN_SHORT if name in drawn[0].recipe]
        return [Facts(facts), *whole_ones]
    names = dict.fromkeys(name for curves in drawn for name in curves.recipe if name != "trained_on")
    rows = [[name, *(_plain(curves.recipe.get(name)) for curves in drawn)] for name in names]
    differ = [row for row in rows if len(set(row[1:])) > 1]
    header = ["setting", *(curves.name for curves in drawn)]
    table: Block = Table(header, differ, "settings in which the recipes differ")
    return [table if differ else Text("The recipes do not differ."), *whole_ones]


def _plain(value: object) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _environments(drawn: Sequence[Curves]) -> list[Section]:
    parts: list[Block] = []
    for curves in drawn:
        try:
            found = read_object(
                Run(curves.path).environment_path, DataError, "train the run on to write it anew"
            )
        except MynaError:  # the report is of the curves: it does without
            continue
        facts = Facts([(name, _plain(value)) for name, value in found.items()])
        parts.append(facts if len(drawn) == 1 else Part(curves.name, [facts]))
    return [Section("Environment", parts)] if parts else []
