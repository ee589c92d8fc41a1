"""MMLU: 57 subjects of four-choice questions (Hendrycks et al. 2021, arXiv:2009.03300), from either of its layouts.

The authors' archive has a CSV file a subject, without a header: question, four choices, the letter of the answer.

    FOLDER/dev/anatomy_dev.csv  FOLDER/test/anatomy_test.csv

The hub's `cais/mmlu` has tables with the columns question, choices, answer (0 to 3) and subject, parquet or JSONL:

    FOLDER/all/dev-00000-of-00001.parquet  FOLDER/all/test-00000-of-00001.parquet

or dev.jsonl and test.jsonl, in FOLDER, in FOLDER/all or in a folder a subject.

`test` is what is scored; the first questions of a subject's `dev` are the examples before each.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from myna.errors import DataError
from myna.evaluate.accuracy import standard_error
from myna.evaluate.choices import LETTERS, Choice, Style, encode_choices
from myna.evaluate.continuations import Question
from myna.evaluate.finite import finite
from myna.files import reading
from myna.parsing import parse_json
from myna.text.tokenizer import Tokenizer

SOURCE = "give MMLU's folder: the authors' data.tar unpacked (dev and test are in it), or the hub's cais/mmlu"


@dataclass
class Subject:
    """One subject's questions: `dev` for the examples, in order, and `test`, which is scored."""

    name: str  # as the files have it: high_school_physics
    dev: list[Choice] = field(default_factory=list)
    test: list[Choice] = field(default_factory=list)


def read_mmlu(folder: Path, shots: int, style: Style) -> list[Subject]:
    """The subjects in alphabetical order.

    Args:
        shots: examples that each subject must have.
        style: what is scored; a choice may be empty where only its letter is.
    Raises:
        DataError: a file is missing or is not what it should be; the message names it, and the row.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {SOURCE}")
    subjects: dict[str, Subject] = {}
    for split in ("dev", "test") if shots else ("test",):
        for path in _files(folder, split):
            for number, row in enumerate(_rows(path), start=1):
                where = f"{path}, row {number}"
                name = _subject(row, path, split, where)
                getattr(subjects.setdefault(name, Subject(name)), split).append(_choice(row, style, where))
    found = [subjects[name] for name in sorted(subjects) if subjects[name].test]
    if not found:
        raise DataError(f"{folder} has no questions of the split test; {SOURCE}")
    for subject in found:
        if len(subject.dev) < shots:
            raise DataError(
                f"{folder} has {len(subject.dev)} examples of {subject.name} in dev, fewer than the {shots} to show; "
                "give fewer with --shots, or the whole folder"
            )
    return found


def encode_mmlu(
    subjects: Sequence[Subject], shots: int, style: Style, tokenizer: Tokenizer, block_size: int
) -> list[list[Question]]:
    """The questions of each subject: what they are about, examples, and the question itself."""
    kind = "multiple choice questions" if style == "letters" else "questions"
    encoded = []
    for subject in subjects:
        about = f"The following are {kind} (with answers) about {subject.name.replace('_', ' ')}.\n\n"
        examples = "".join(choice.solved(style) for choice in subject.dev[:shots])
        encoded.append(encode_choices(subject.test, about + examples, style, tokenizer, block_size))
    return encoded


def mmlu_scores(sums: Tensor, subjects: Sequence[Subject], style: Style) -> dict[str, float]:
    """Sums of each subject, added over the ranks, to accuracies: over questions, over subjects (macro), of each.

    Args:
        sums: (subjects, 4) from `choice_sums` of each subject's questions.
    Raises:
        ModelError: the model's output was not finite.
    """
    readings = (
        {"mmlu_acc": 0} if style == "letters" else {"mmlu_acc": 0, "mmlu_acc_token": 1, "mmlu_acc_char": 2}
    )
    items = sums[:, 3].tolist()
    found: dict[str, float] = {}
    for key, column in readings.items():
        each = (sums[:, column] / sums[:, 3]).tolist()
        errors = [standard_error(accuracy, int(n)) for accuracy, n in zip(each, items, strict=True)]
        micro = float(sums[:, column].sum() / sums[:, 3].sum())
        found |= finite({key: micro})
        found |= {
            f"{key}_stderr": standard_error(micro, int(sum(items))),
            f"{key}_macro": sum(each) / len(each),
            f"{key}_macro_stderr": math.hypot(*errors) / len(each),
        }
        for subject, accuracy, error in zip(subjects, each, errors, strict=True):
            found |= {f"{key}/{subject.name}": accuracy, f"{key}_stderr/{subject.name}": error}
    counts = {f"mmlu_items/{subject.name}": int(n) for subject, n in zip(subjects, items, strict=True)}
    return found | {"mmlu_chance": 1 / len(LETTERS), "mmlu_items": int(sum(items))} | counts


def _files(folder: Path, split: str) -> list[Path]:
    """A split's files: the authors', or the hub's in FOLDER or FOLDER/all, else in each subject's folder."""
    found = sorted((folder / split).glob(f"*_{split}.csv"))
    for place in (".", "all", "*"):
        found = found or sorted(
            path for suffix in ("parquet", "jsonl") for path in folder.glob(f"{place}/{split}[-.]*{suffix}")
        )
    return found


def _rows(path: Path) -> Iterator[Any]:
    """The rows of a file, those of a CSV file as the hub's tables have them."""
    try:
        with reading(path):
            data = path.read_bytes()
        if path.suffix == ".parquet":
            yield from pq.read_table(pa.BufferReader(data)).to_pylist()
        elif path.suffix == ".jsonl":
            yield from (parse_json(line) for line in data.splitlines() if line.strip())
        else:
            rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
            yield from (
                {"question": row[0], "choices": row[1:-1], "answer": row[-1]} if len(row) > 2 else {}
                for row in rows
            )
    except (pa.ArrowException, csv.Error, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:]} ({' '.join(str(error).split())}); {SOURCE}"
        ) from error


def _subject(row: Any, path: Path, split: str, where: str) -> str:
    if path.suffix == ".csv":
        return path.name.removesuffix(f"_{split}.csv")
    name = (row.get("subject") if isinstance(row, dict) else None) or path.parent.name
    if not isinstance(name, str):
        raise DataError(f"{where}: field 'subject' is no text; {SOURCE}")
    return name


def _choice(row: Any, style: Style, where: str) -> Choice:
    if not isinstance(row, dict):
        raise DataError(f"{where}: no object with a question; {SOURCE}")
    text, choices, answer = (row.get(name) for name in ("question", "choices", "answer"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: the question is empty or no text; {SOURCE}")
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        raise DataError(f"{where}: not {len(LETTERS)} choices; {SOURCE}")
    for letter, choice in zip(LETTERS, choices, strict=True):
        if not isinstance(choice, str) or (style == "ending" and not choice.strip()):
            raise DataError(f"{where}: choice {letter} is empty or no text; {SOURCE}")
    try:
        "".join([text, *choices]).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a lone surrogate, which is no character; mend the row") from error
    label = LETTERS.index(answer.strip()) if isinstance(answer, str) and answer.strip() in LETTERS else answer
    if type(label) is not int or not 0 <= label < len(LETTERS):
        raise DataError(
            f"{where}: the answer is {answer!r}, not a letter A to D or a number 0 to 3; {SOURCE}"
        )
    return Choice(text, tuple(choices), label)
