"""Many runs that differ in what is asked about: which they are, where they lie, and what came of each.

DIR/sweep.json        the recipe, what varies, and what was resolved once for all runs; written before the first of them
DIR/NAME/             an ordinary run of `myna train`
DIR/NAME/outcome.json how it ended: finished, or diverged, which is a result too
DIR/sweep.md          the table
DIR/sweep.png, .html  all curves in one picture, and the page

Nothing here trains: `commands/sweep.py` starts the runs as processes.
"""

import dataclasses
import itertools
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from myna.errors import DataError, UsageError
from myna.files import json_bytes, write_atomic
from myna.parsing import number, read_object, whole
from myna.run import Run

FORMAT = "myna-sweep-1"
Outcome = Literal["finished", "diverged", "failed", "missing"]


@dataclass(frozen=True)
class Variation:
    """One row of the table.

    Attributes:
        name: unique, and fit for a folder.
        settings: fields of the recipe with their values, as text; `network.norm` for an option.
        asks: what the row is about, in a sentence.
    """

    name: str
    settings: Mapping[str, str]
    asks: str = ""


@dataclass(frozen=True)
class Trial:
    """One run: a row with a seed."""

    variation: Variation
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^\w.=,-]+", "-", f"{self.variation.name}-seed{self.seed}")


@dataclass(frozen=True)
class Sweep:
    """What is tried.

    Attributes:
        recipe: the name that every run begins with.
        fixed: settings of all runs, see `Variation.settings`.
        resolved: what `auto` came to on the machine that began, once for all: device, precision, micro_batch, threads.
    """

    recipe: str
    fixed: Mapping[str, str]
    variations: tuple[Variation, ...]
    seeds: tuple[int, ...]
    resolved: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def trials(self) -> list[Trial]:
        """All runs, all rows with the first seed first: so a table that is not whole compares what it has."""
        return [Trial(variation, seed) for seed in self.seeds for variation in self.variations]

    def part(self, number: int, of: int) -> list[Trial]:
        """The runs of one of several machines; parts count from 1."""
        return self.trials()[number - 1 :: of]

    def settings(self, trial: Trial) -> dict[str, str]:
        """All that differs from the recipe, the seed included."""
        return {**self.fixed, **trial.variation.settings, "seed": str(trial.seed)}

    def to_json(self) -> dict[str, Any]:
        """As sweep.json keeps it."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def read(cls, path: Path) -> "Sweep":
        """
        Raises:
            DataError: it is not what `write` wrote.
        """
        stored = read_object(path, DataError, "restore the file, or give another --out")
        try:
            if stored["format"] != FORMAT:
                raise ValueError(f"its format is {stored['format']!r}")
            return cls(
                recipe=stored["recipe"],
                fixed=stored["fixed"],
                variations=tuple(Variation(**one) for one in stored["variations"]),
                seeds=tuple(stored["seeds"]),
                resolved=stored["resolved"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no sweep's file ({error}); give another --out") from error

    def write(self, path: Path) -> None:
        """Writes sweep.json, whole or not at all."""
        write_atomic(path, json_bytes(self.to_json()))


def combinations(fields: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], tuple[Variation, ...]]:
    """What all runs have, and a row for each combination of the rest.

    >>> fixed, rows = combinations({"steps": ["9"], "learning_rate": ["1e-3", "2e-3"], "network.norm": ["pre", "post"]})
    >>> fixed, [row.name for row in rows][:2]
    ({'steps': '9'}, ['learning_rate=1e-3,network.norm=pre', 'learning_rate=1e-3,network.norm=post'])
    """
    fixed = {name: values[0] for name, values in fields.items() if len(values) == 1}
    varied = {name: values for name, values in fields.items() if len(values) > 1}
    rows = []
    for values in itertools.product(*varied.values()):
        settings = dict(zip(varied, values, strict=True))
        rows.append(Variation(",".join(f"{k}={v}" for k, v in settings.items()) or "base", settings))
    return fixed, tuple(rows)


def read_fields(arguments: Sequence[str]) -> dict[str, list[str]]:
    """FIELD=V1,V2 arguments.

    Raises:
        UsageError: one of another form, a field or a value that comes twice.

    >>> read_fields(["learning-rate=1e-3,2e-3", "network.norm=post"])
    {'learning_rate': ['1e-3', '2e-3'], 'network.norm': ['post']}
    """
    fields: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        values = text.split(",")
        if not equals or not name or not all(values):
            raise UsageError(
                f"{argument!r} names no values; write FIELD=V1,V2, as in learning_rate=1e-3,2e-3"
            )
        if name in fields:
            raise UsageError(f"{name} is given twice; write all its values after one {name}=")
        if len(set(values)) < len(values):
            raise UsageError(f"{argument!r} has a value twice; --seeds N runs each more than once")
        fields[name] = values
    return fields


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        step: finished steps.
        loss: the last validation loss, in nats; None where there is none.
        seconds: of training steps.
        message: of one that diverged or failed.
    """

    trial: Trial
    outcome: Outcome
    step: int = 0
    loss: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    message: str = ""


def outcome_path(folder: Path) -> Path:
    """Where a run's end is noted."""
    return folder / "outcome.json"


def write_outcome(folder: Path, outcome: Outcome, message: str = "") -> None:
    """Notes how a run ended."""
    write_atomic(outcome_path(folder), json_bytes({"outcome": outcome, "message": message}))


def result_of(folder: Path, trial: Trial) -> Result:
    """What a run's folder says.

    Raises:
        DataError: outcome.json is damaged. UnreadableError: a file can't be read.
    """
    if not outcome_path(folder).exists():
        return Result(trial, "missing")
    noted = read_object(outcome_path(folder), DataError, "remove the file, and run the sweep again")
    outcome: Any = noted.get("outcome")
    if outcome not in ("finished", "diverged", "failed"):
        raise DataError(f"{outcome_path(folder)} names no outcome; remove the file, and run the sweep again")
    records = Run(folder).metrics()
    losses = [found for record in records if (found := number(record, "val_loss")) is not None]
    steps = [record for record in records if "train_loss" in record]
    return Result(
        trial,
        outcome,
        step=steps[-1]["step"] if steps else 0,
        loss=losses[-1] if losses and outcome == "finished" else None,
        tokens=max((whole(record, "tokens") or 0 for record in steps), default=0),
        seconds=sum(number(record, "seconds") or 0.0 for record in steps),
        message=str(noted.get("message", "")),
    )


HEADER = ("", "loss", "deviation", "against the first", "seeds", "tokens", "seconds", "")


def rows(sweep: Sweep, results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """The table, a row for each variation: texts, as `HEADER` names them."""
    first: float | None = None
    for variation in sweep.variations:
        mine = [result for result in results if result.trial.variation == variation]
        losses = [result.loss for result in mine if result.loss is not None]
        mean = statistics.fmean(losses) if losses else None
        if variation == sweep.variations[0]:
            first = mean
        ended = [result for result in mine if result.outcome != "missing"]
        yield (
            variation.name,
            "" if mean is None else f"{mean:.4f}",
            f"{statistics.stdev(losses):.4f}" if len(losses) > 1 else "",
            ""
            if mean is None or first is None or variation == sweep.variations[0]
            else f"{mean - first:+.4f}",
            f"{len(losses)} of {len(sweep.seeds)}",
            f"{max(result.tokens for result in ended):,}" if ended else "",
            f"{statistics.fmean(result.seconds for result in ended):.0f}" if ended else "",
            "; ".join(note for result in mine if (note := _note(result))),
        )


def _note(result: Result) -> str:
    seed = f"seed {result.trial.seed}"
    match result.outcome:
        case "diverged":
            return f"diverged at step {result.step + 1} ({seed})"
        case "failed":
            return f"failed: {result.message} ({seed})"
        case "missing":
            return f"not run yet ({seed})"
    return ""


def markdown(sweep: Sweep, results: Sequence[Result]) -> str:
    """The table for people and for documents."""
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows(sweep, results)]
    return "\n".join(lines) + "\n"


LECTURE = Sweep(
    recipe="pydoc",
    # All that the rows compare is named here: the recipe may change, and the questions stay the lecture's.
    fixed={
        "network": "variants",
        "n_layer": "4",
        "n_head": "4",
        "n_embd": "128",
        "block_size": "128",
        "sequence_length": "128",
        "steps": "300",
        "batch_tokens": "2048",
        "optimizer": "adamw",
        "learning_rate": "2e-3",
        "final_learning_rate_fraction": "0.1",
        "warmup_steps": "15",
        "decay": "cosine",
        "constant_fraction": "0",
        "clip_norm": "1",
        "eval_every": "100",
        "sample_every": "0",
        "checkpoint_every": "100",
    },
    variations=(
        Variation("base", {}, "GPT-2's network and AdamW, 300 steps on Python's documentation"),
        Variation("norm after", {"network.norm": "post"}, "Do norms belong before attention and MLP?"),
        Variation("no residual scaling", {"network.residual_scaling": "False"}, "What is 1/sqrt(2L) worth?"),
        Variation("exact GELU", {"network.activation": "gelu"}, "Does GELU's approximation cost anything?"),
        Variation("ReLU", {"network.activation": "relu"}, "Is GELU better than ReLU?"),
        Variation("sines and cosines", {"network.positions": "sinusoidal"}, "Must positions be learned?"),
        Variation("no positions", {"network.positions": "none"}, "Does it need positions at all?"),
        Variation("untied", {"network.tied_head": "False"}, "What does sharing embeddings and head save?"),
        Variation("dropout", {"dropout": "0.1"}, "Does dropout help where each text is seen once or twice?"),
        Variation("no warmup", {"warmup_steps": "0"}, "What is the warmup for?"),
        Variation("linear decay", {"decay": "linear"}, "Is a cosine better than a line?"),
        Variation("constant rate", {"decay": "constant"}, "What does the decay of the learning rate bring?"),
        Variation("rate x 3", {"learning_rate": "6e-3"}, "How much higher may the learning rate be?"),
        Variation("rate / 3", {"learning_rate": "6.7e-4"}, "And how much lower?"),
        Variation("no clipping", {"clip_norm": "0"}, "Does clipping matter when nothing goes wrong?"),
        Variation("decay on all", {"optimizer.decays": "all"}, "May norms and biases decay, too?"),
        Variation("Adam", {"optimizer": "adam"}, "Where does the decay belong?"),
        Variation("SGD", {"optimizer": "sgd", "learning_rate": "0.3"}, "Would plain gradient descent do?"),
        Variation("sequential", {"order": "sequential"}, "Must the windows be shuffled?"),
    ),
    seeds=(1337, 1338),
)
PREPARED = {"lecture": LECTURE}
