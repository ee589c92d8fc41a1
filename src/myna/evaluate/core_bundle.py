"""CORE's published bundle: which tasks it has, and how an item becomes text. No torch.

    core.yaml             icl_tasks: a list of label, dataset_uri, num_fewshot, icl_task_type, continuation_delimiter
    eval_meta_data.csv    the columns "Eval Task" and "Random baseline" (what guessing reaches, in percent)
    eval_data/            one JSONL file a dataset; two tasks may share one (HellaSwag with 0 and with 10 examples)

A task has items of one kind:

| icl_task_type | an item | right when |
|---|---|---|
| multiple_choice | a `query`, several `choices`, `gold` | the gold choice costs least, per token |
| schema | several `context_options`, one `continuation`, `gold` | the continuation costs least after the gold context |
| language_modeling | a `context`, a `continuation` | each token of the continuation is the likeliest |

An item's order and its few-shot examples are part of the published number, so they follow the bundle's own rule.

Sources:
    the bundle, the order and the examples: nanochat, scripts/base_eval.py and nanochat/core_eval.py
    the tasks: DCLM, arXiv:2406.11794
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from myna.errors import DataError, MynaError, UsageError
from myna.files import reading
from myna.parsing import parse_json
from myna.paths import cannot_use

Kind = Literal["multiple_choice", "schema", "language_modeling"]

ORDER_SEED = 1337
EXAMPLES_SEED = 1234  # plus the item's number in that order
# The 22 tasks whose mean is CORE. A bundle with others, or with fewer, has no CORE.
CORE_LABELS = {
    "hellaswag_zeroshot",
    "jeopardy",
    "bigbench_qa_wikidata",
    "arc_easy",
    "arc_challenge",
    "copa",
    "commonsense_qa",
    "piqa",
    "openbook_qa",
    "lambada_openai",
    "hellaswag",
    "winograd",
    "winogrande",
    "bigbench_dyck_languages",
    "agi_eval_lsat_ar",
    "bigbench_cs_algorithms",
    "bigbench_operators",
    "bigbench_repeat_copy_logic",
    "squad",
    "coqa",
    "boolq",
    "bigbench_language_identification",
}


@dataclass(frozen=True)
class Item:
    """One question: contexts and endings, of which one side has one text only.

    Attributes:
        gold: the number of the right choice or context.
    """

    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    gold: int = 0

    def texts(self, delimiter: str) -> tuple[str, ...]:
        """Each context with each ending.

        >>> Item(("1 + 1 =",), ("2", "3")).texts(" ")
        ('1 + 1 = 2', '1 + 1 = 3')
        """
        return tuple(context + delimiter + ending for context in self.contexts for ending in self.endings)


@dataclass(frozen=True)
class Task:
    """A task of the bundle, with its items in the published order.

    Attributes:
        shots: examples before each item.
        delimiter: what stands between a context and its ending.
        chance: the accuracy of a guess, in [0, 1).
    """

    label: str
    kind: Kind
    shots: int
    delimiter: str
    chance: float
    items: tuple[Item, ...]

    def texts(self, number: int) -> tuple[str, ...]:
        """The whole texts of an item, its examples first: one for each choice or context."""
        examples = self._examples(number)
        return tuple(examples + text for text in self.items[number].texts(self.delimiter))

    def context(self, number: int) -> str:
        """What comes before the continuation of an item of language_modeling: no space at either end."""
        return (self._examples(number) + self.items[number].contexts[0] + self.delimiter).strip()

    def _examples(self, number: int) -> str:
        """Other items with their answers, drawn by the item's number."""
        # A place among the other items; drawing from their list, as the rule says, gives the same places.
        drawn = random.Random(EXAMPLES_SEED + number).sample(range(len(self.items) - 1), self.shots)
        solved = (self.items[place + (place >= number)] for place in drawn)
        return "".join(f"{item.texts(self.delimiter)[item.gold]}\n\n" for item in solved)


def read_bundle(folder: Path) -> list[Task]:
    """The tasks of a bundle, with their items.

    Raises:
        DataError: a file is missing or is not what it should be; the message names it, and the line.
        UsageError: PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError("--task core needs PyYAML; install it: pip install 'myna[eval]'") from error
    path = folder / "core.yaml"
    try:
        config = yaml.safe_load(_read(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not YAML ({' '.join(str(error).split())}); unpack the bundle again"
        ) from error
    entries = config.get("icl_tasks") if isinstance(config, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f"{path} has no list icl_tasks; give the folder of the bundle that nanochat publishes"
        )
    chances = _chances(folder / "eval_meta_data.csv")
    tasks = [_task(entry, folder, chances, f"{path}, task {n}") for n, entry in enumerate(entries, start=1)]
    labels = [task.label for task in tasks]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise DataError(f"{path} has two tasks {twice!r}; take one away")
    return tasks


def is_whole(tasks: Sequence[Task]) -> bool:
    """Whether these are the 22 tasks of CORE."""
    return len(tasks) == len(CORE_LABELS) and {task.label for task in tasks} == CORE_LABELS


def _read(path: Path) -> bytes:
    try:
        with reading(path):
            return path.read_bytes()
    except OSError as error:
        raise DataError(f"{cannot_use(error, path)}; --data is the folder with core.yaml in it") from error


def _chances(path: Path) -> dict[str, float]:
    """What guessing reaches, by the task's label."""
    try:
        lines = _read(path).decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; unpack the bundle again") from error
    found = {}
    try:
        for row in csv.DictReader(lines):
            label, percent = row["Eval Task"], row["Random baseline"]
            found[label] = float(percent) / 100
            if not 0 <= found[label] < 1:
                raise ValueError(f"the baseline of {label} is {percent}")
    except (csv.Error, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} has no baseline from 0 to below 100 in each row ({error}); unpack the bundle again"
        ) from error
    return found


def _task(entry: Any, folder: Path, chances: dict[str, float], where: str) -> Task:
    if not isinstance(entry, dict):
        raise DataError(f"{where} is no mapping; unpack the bundle again")
    label, uri, kind = (entry.get(name) for name in ("label", "dataset_uri", "icl_task_type"))
    shots, delimiter = entry.get("num_fewshot"), entry.get("continuation_delimiter", " ")
    if not all(isinstance(text, str) for text in (label, uri, delimiter)):
        raise DataError(
            f"{where}: label, dataset_uri and continuation_delimiter are texts; unpack the bundle again"
        )
    if kind not in READERS:
        raise DataError(
            f"{where} ({label}): there is no icl_task_type {kind!r}; there are: {', '.join(READERS)}"
        )
    if not (isinstance(shots, list) and shots and type(shots[0]) is int and shots[0] >= 0):
        raise DataError(
            f"{where} ({label}): num_fewshot is {shots!r}; give a list of one number, such as [10]"
        )
    if label not in chances:
        raise DataError(f"{where}: {folder / 'eval_meta_data.csv'} has no baseline of {label}; add its row")
    path = folder / "eval_data" / cast(str, uri)
    if not path.is_file():
        raise DataError(
            f"{path}, of the task {label}, is not there; unpack the bundle again, or take the task out of core.yaml to "
            "score the others (CORE is a mean over all 22)"
        )
    items = _items(path, cast(Kind, kind))
    random.Random(ORDER_SEED).shuffle(items)
    if len(items) <= shots[0]:
        raise DataError(
            f"{path} has {len(items)} items, too few for {shots[0]} examples before each ({label})"
        )
    return Task(label, kind, shots[0], delimiter, chances[label], tuple(items))


def _items(path: Path, kind: Kind) -> list[Item]:
    items = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if line.strip():
            try:
                items.append(READERS[kind](parse_json(line)))
            except (ValueError, MynaError) as error:
                raise DataError(f"{path}, line {number}: {error}") from error
    return items


def _text(row: Any, name: str) -> str:
    """A field as text; a number is written as text."""
    value = row.get(name) if isinstance(row, dict) else None
    if type(value) in (int, float):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"no text in field {name!r}")
    return _sound(value, name)


def _texts(row: Any, name: str) -> tuple[str, ...]:
    values = row.get(name) if isinstance(row, dict) else None
    if not isinstance(values, list) or len(values) < 2:
        raise DataError(f"field {name!r} is no list of two texts or more")
    return tuple(_text({name: value}, name) for value in values)


def _sound(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"field {name!r} has a lone surrogate, which is no character") from error
    return text


def _gold(row: Any, count: int) -> int:
    gold = row.get("gold")
    if type(gold) is not int or not 0 <= gold < count:
        raise DataError(f"gold is {gold!r}, which is not the number of a choice (0 to {count - 1})")
    return gold


def _ending(text: str, name: str) -> str:
    if not text.strip():
        raise DataError(f"field {name!r} has an empty text, which cannot be scored")
    return text


def _multiple_choice(row: Any) -> Item:
    query, choices = _text(row, "query"), _texts(row, "choices")
    return Item((query,), tuple(_ending(choice, "choices") for choice in choices), _gold(row, len(choices)))


def _schema(row: Any) -> Item:
    contexts, ending = _texts(row, "context_options"), _ending(_text(row, "continuation"), "continuation")
    return Item(contexts, (ending,), _gold(row, len(contexts)))


def _language_modeling(row: Any) -> Item:
    return Item((_text(row, "context").strip(),), (_ending(_text(row, "continuation"), "continuation"),))


READERS = {"multiple_choice": _multiple_choice, "schema": _schema, "language_modeling": _language_modeling}
