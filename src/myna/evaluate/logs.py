"""Other programs' logs as the records of a run, so that a report can lay them over ours.

Which lines are read is in the table `PROGRAMS`. A new program is one more entry there.

A record of ours has the number of finished updates as its `step`. The three programs count from 0: the training loss
of their step k is that of update k + 1, and their evaluation at step k comes before it, after k updates.

Sources: build-nanogpt's train_gpt2.py; llm.c's llmc/logger.h and train_gpt2.cu; nanoGPT's train.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myna.errors import DataError
from myna.files import reading
from myna.parsing import MOST_WHOLE
from myna.paths import cannot_use
from myna.references import HELLASWAG_ITEMS

LINE_BYTES = (
    1 << 16
)  # no line of a log is as long; what is longer is read in pieces, and counts as other lines
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|nan|inf)"
_STEP = r"(?P<step>\d{1,15})"


def _line(form: str) -> re.Pattern[str]:
    """A form as a pattern: STEP is the step, and {name} a number of that name."""
    numbers = re.sub(r"\{(\w+)\}", lambda name: f"(?P<{name[1]}>{_NUMBER})", form)
    return re.compile(numbers.replace("STEP", _STEP))


@dataclass(frozen=True)
class Program:
    """An entry of the table.

    Attributes:
        trained: the line of an update, counted from 0. The names of its numbers are those of metrics.jsonl, or in
            `_values`.
        evaluated: the lines of an evaluation.
        example: a line, for a person who gave another file.
        alone: the file holds these lines and nothing else, so any other line is damage. Else it is what the program
            printed, and most lines may be others.
        batch_tokens: a line that states the tokens of a step.
    """

    trained: re.Pattern[str]
    evaluated: tuple[re.Pattern[str], ...]
    example: str
    alone: bool = True
    batch_tokens: re.Pattern[str] | None = None


PROGRAMS = {
    "build-nanogpt": Program(
        trained=_line(r"STEP train {train_loss}"),
        evaluated=(_line(r"STEP val {val_loss}"), _line(r"STEP hella {hellaswag_acc_token}")),
        example="0 val 10.9511",
    ),
    "llm.c": Program(
        trained=_line(r"s:STEP trl:{train_loss}(?: lr:{learning_rate})?(?: norm:{grad_norm})?"),
        evaluated=(_line(r"s:STEP tel:{val_loss}"), _line(r"s:STEP eval:{hellaswag_acc_token}")),
        example="s:0 tel:11.0092",
    ),
    "nanoGPT": Program(
        trained=_line(r"iter STEP: loss {train_loss}, time {milliseconds}ms(?:, mfu {mfu_percent}%)?"),
        evaluated=(_line(r"step STEP: train loss {estimate}, val loss {val_loss}"),),
        example="step 250: train loss 2.4, val loss 2.5",
        alone=False,
        batch_tokens=re.compile(r"tokens per iteration will be: ([\d,]{1,15})"),
    ),
}


@dataclass
class Log:
    """What a log says.

    Attributes:
        program: whose it is: its name in `PROGRAMS`.
        records: by step, without `tokens`: the log doesn't count them.
        lines: that were read.
        others: that are none of the program's; the number of the first is `first_other`.
        twice: values that a later line replaced, as a resumed run writes again what it repeats.
        cut: the last line has no end, as after a crash, and was left out.
        batch_tokens: tokens of a step, where the log states them.
    """

    program: str
    records: list[dict[str, Any]]
    lines: int = 0
    others: int = 0
    first_other: int = 0
    twice: int = 0
    cut: bool = False
    batch_tokens: int | None = None

    def with_tokens(self, batch_tokens: int) -> list[dict[str, Any]]:
        """The records as metrics.jsonl has them.

        Raises:
            DataError: a step's tokens are too many to count.
        """
        last = self.records[-1]["step"]
        if last * batch_tokens >= MOST_WHOLE:
            raise DataError(
                f"step {last:,} of {batch_tokens:,} tokens is too far to be true; mend the log's last lines, or give "
                "other --batch-tokens"
            )
        records = []
        for record in self.records:
            step, values = record["step"], {key: value for key, value in record.items() if key != "step"}
            if values.get("seconds"):
                values["tokens_per_second"] = round(batch_tokens / values["seconds"], 1)
            records.append({"step": step, "tokens": step * batch_tokens} | values)
        return records


def read_log(path: Path) -> Log:
    """Reads a log. Lines that are damaged are counted, and left out.

    Raises:
        DataError: it is no log of a program in the table, or more damage than log; or it holds the lines of two
            programs, or two runs, or no loss. UnreadableError: it can't be read.
    """
    try:
        with reading(path):
            return _Reader(path).read()
    except OSError as error:
        raise DataError(cannot_use(error, path)) from error


def forms() -> str:
    """The programs, each with one of its lines, for a message."""
    return ", ".join(f"{name}: `{program.example}`" for name, program in PROGRAMS.items())


class _Reader:
    def __init__(self, path: Path):
        self.path, self.log = path, Log("", [])
        self.found: dict[tuple[int, str], dict[str, Any]] = {}
        self.started: dict[str, int] = {}  # kinds of lines whose step 0 was seen -> the line
        self.stated: tuple[int, int] | None = None  # tokens of a step, and the line
        self.furthest = 0

    def read(self) -> Log:
        log = self.log
        for number, text in self._lines():
            if not self._take(number, text):
                log.others += 1
                log.first_other = log.first_other or number
        self._check()
        if not any("train_loss" in record for record in self.found.values()):
            for record in self.found.values():  # nothing better is there
                if "estimate" in record:
                    record["train_loss"] = record["estimate"]
        records = [
            {key: value for key, value in record.items() if key != "estimate"}
            for record in self.found.values()
        ]
        log.records = sorted(records, key=lambda record: record["step"])
        log.batch_tokens = self.stated and self.stated[0]
        return log

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The lines with something in them, and their numbers."""
        number = 0
        with open(self.path, "rb") as file:
            while line := file.readline(LINE_BYTES):
                number += 1
                if not line.endswith(b"\n") and len(line) < LINE_BYTES:
                    self.log.cut = True
                elif text := line.decode("utf-8", errors="replace").strip():
                    yield number, text

    def _take(self, number: int, text: str) -> bool:
        """Whether it is a line of the program's; of the first program that has one."""
        for name in [self.log.program] if self.log.program else PROGRAMS:
            program = PROGRAMS[name]
            if program.batch_tokens and (stated := program.batch_tokens.fullmatch(text)):
                self._state(number, int(stated[1].replace(",", "") or 0))
                return True
            for after, pattern in ((1, program.trained), *((0, one) for one in program.evaluated)):
                if match := pattern.fullmatch(text):
                    self.log.program = name
                    return self._keep(number, pattern.pattern, after, match.groupdict())
        self._refuse_another(number, text)
        return False

    def _refuse_another(self, number: int, text: str) -> None:
        for name, program in PROGRAMS.items():
            if any(pattern.fullmatch(text) for pattern in (program.trained, *program.evaluated)):
                raise DataError(
                    f"{self.path} holds lines of {self.log.program}, and line {number:,} is one of {name}; give the "
                    "log of one run"
                )

    def _keep(self, number: int, kind: str, after: int, groups: dict[str, str | None]) -> bool:
        step = int(groups.pop("step") or 0)
        values = _values({name: float(text) for name, text in groups.items() if text is not None})
        if values is None:
            return False
        if step == 0 and self.started.setdefault(kind, number) != number and self.furthest:
            raise DataError(
                f"{self.path}, line {number:,}: the steps begin again at 0 after step {self.furthest:,}, so these are "
                "two runs; give each in its own file"
            )
        self.furthest = max(self.furthest, step)
        self.log.lines += 1
        self.log.twice += (step, kind) in self.found
        self.found[step, kind] = {"step": step + after} | values
        return True

    def _state(self, number: int, batch_tokens: int) -> None:
        if self.stated and self.stated[0] != batch_tokens:
            raise DataError(
                f"{self.path}: line {self.stated[1]:,} states {self.stated[0]:,} tokens a step, and line {number:,} "
                f"{batch_tokens:,}; give the log of one run"
            )
        if not batch_tokens:
            raise DataError(
                f"{self.path}, line {number:,}: 0 tokens a step cannot be; mend or remove the line"
            )
        self.stated = (batch_tokens, number)

    def _check(self) -> None:
        log = self.log
        if not log.lines:
            raise DataError(
                f"{self.path} is nothing that can be imported; give a checkpoint of build-nanogpt, nanoGPT or nanochat "
                f"(torch.save), or a log with lines such as these ({forms()})"
            )
        if PROGRAMS[log.program].alone and log.others > log.lines:
            raise DataError(
                f"{self.path} has {log.lines:,} lines of {log.program}'s log, and {log.others:,} others, the first in "
                f"line {log.first_other:,}; give the log alone"
            )
        if not any("train_loss" in r or "val_loss" in r for r in self.found.values()):
            raise DataError(f"{self.path} has no loss, only accuracies; give the whole log of {log.program}")


def _values(numbers: dict[str, float]) -> dict[str, Any] | None:
    """The numbers of a line under the names of metrics.jsonl; None where one cannot be, so that the line is damaged.

    A loss that is no number stays: the report says at which step that began.

    >>> _values({"train_loss": 2.39, "milliseconds": 42.0, "mfu_percent": 3.5})
    {'train_loss': 2.39, 'seconds': 0.042, 'mfu': 0.035}
    >>> _values({"hellaswag_acc_token": 2.463})
    """
    if any(value < 0 for name, value in numbers.items() if name != "mfu_percent"):
        return None
    values: dict[str, Any] = dict(numbers)
    if "milliseconds" in values:
        values["seconds"] = round(values.pop("milliseconds") / 1000, 6)
    if "mfu_percent" in values and (percent := values.pop("mfu_percent")) >= 0:  # nanoGPT begins with -100
        values["mfu"] = round(percent / 100, 6)
    if "hellaswag_acc_token" in values:
        if not values["hellaswag_acc_token"] <= 1:
            return None
        values["hellaswag_items"] = HELLASWAG_ITEMS  # both programs score all of them
    return values
