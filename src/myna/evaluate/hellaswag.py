"""HellaSwag: which of four endings continues the context?

A model that can only continue a text answers by likelihood: it chooses the ending that is most likely after the
context. "Most likely" has three readings, all from the same log-probabilities:

    hellaswag_acc        the largest sum of log-probabilities                 (lm-evaluation-harness: acc)
    hellaswag_acc_token  the largest mean per token of the ending             (the lecture's; GPT-3's paper)
    hellaswag_acc_char   the largest sum divided by the characters (Unicode code points, not bytes) of the ending,
                         without the space before it                          (lm-evaluation-harness: acc_norm)

Two renderings of an item as text:

    lecture   context: `ctx`; completion: " " + ending. The default, and what training reports.
    harness   that of lm-evaluation-harness's task `hellaswag`. Context: activity_label + ": " + ctx_a + " " +
              ctx_b.capitalize(). In context and endings, " [title]" becomes ". ", other [brackets] (marks left from
              WikiHow) are removed, and double spaces become one. The harness's acc and acc_norm are hellaswag_acc and
              hellaswag_acc_char of this rendering.

In both, a space at the context's end moves to the completion. The lecture is Andrej Karpathy's (see myna/__init__.py).

Sources: Zellers et al. 2019, arXiv:1905.07830 (github.com/rowanz/hellaswag, MIT); build-nanogpt's hellaswag.py;
lm-evaluation-harness's tasks/hellaswag/utils.py and api/task.py.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from myna.data.sources.published import PublishedFile
from myna.errors import DataError
from myna.evaluate.choices import Choice
from myna.evaluate.continuations import Question, question
from myna.evaluate.finite import finite
from myna.parsing import parse_json
from myna.text.tokenizer import Tokenizer

Rendering = Literal["lecture", "harness"]

# All 10,042 items. Hugging Face's `datasets` recorded this size and hash for this address in 2020
# (datasets/hellaswag/dataset_infos.json of github.com/huggingface/datasets).
OFFICIAL = PublishedFile(
    "hellaswag_val.jsonl",
    url="https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
    n_bytes=12_246_618,
    sha256="0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
    folder="evaluation",
)
SOURCE = "the official file is hellaswag_val.jsonl of github.com/rowanz/hellaswag, folder data"


@dataclass(frozen=True)
class Item:
    """One question as text: `context`, then one of `completions` (each begins with a space).

    Attributes:
        characters: how many each ending has, without the space before it.
        label: the number of the right ending, from 0.
        line: the item's line in its file, from 1.
    """

    context: str
    completions: tuple[str, ...]
    characters: tuple[int, ...]
    label: int
    line: int = field(default=0, compare=False)


def read_items(path: Path | str, rendering: Rendering = "lecture") -> list[Item]:
    """The items of a file in HellaSwag's official JSONL format.

    Raises:
        DataError: the file can't be read, or a line is not an item of this format; the message names the line.
    """
    path = Path(path)
    items = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    item = _item(line, f"{path}, line {number}", rendering)
                    items.append(replace(item, line=number))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {SOURCE}") from error
    if not items:
        raise DataError(f"{path} has no items; {SOURCE}")
    return items


def _item(line: bytes, where: str, rendering: Rendering) -> Item:
    try:
        row = parse_json(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text; {SOURCE}") from error
    except ValueError as error:
        raise DataError(f"{where}: not a JSON object ({error}); {SOURCE}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; {SOURCE}")
    needed = ("ctx",) if rendering == "lecture" else ("activity_label", "ctx_a", "ctx_b")
    for name in needed:
        if not isinstance(row.get(name), str):
            raise DataError(f"{where}: no text in field {name!r}; {SOURCE}")
    # ctx_b may be empty. It is empty in WikiHow's items.
    if not row["ctx" if rendering == "lecture" else "ctx_a"].strip():
        raise DataError(f"{where}: the context is empty; {SOURCE}")
    endings = row.get("endings")
    if (
        not isinstance(endings, list)
        or len(endings) != 4
        or not all(isinstance(e, str) and e for e in endings)
    ):
        raise DataError(f"{where}: field 'endings' is not a list of 4 texts; {SOURCE}")
    try:
        "".join([*(row[name] for name in needed), *endings]).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: a lone surrogate (U+{ord(error.object[error.start]):04X}), which is no character; mend the line"
        ) from error
    if row.get("label") in (None, ""):
        raise DataError(
            f"{where}: no label (the test split's answers are not public); score the validation split"
        )
    # The label is a number in the official file, and text in some copies.
    label = str(row["label"])
    if label not in map(str, range(len(endings))):
        raise DataError(
            f"{where}: label {row['label']!r} is not the number of an ending (0 to {len(endings) - 1})"
        )
    context, endings = RENDERINGS[rendering](row)
    if not all(endings):
        raise DataError(f"{where}: an ending has no text left once its [brackets] are removed")
    # A context must not end in a space, since the completion's first token begins with one. So a space at the context's
    # end moves to the completion, as in the harness.
    bare = context.rstrip()
    completions = tuple(context[len(bare) :] + " " + ending for ending in endings)
    return Item(bare, completions, tuple(map(len, endings)), int(label))


def _lecture(row: dict[str, Any]) -> tuple[str, list[str]]:
    return row["ctx"], row["endings"]


def _harness(row: dict[str, Any]) -> tuple[str, list[str]]:
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _without_brackets(context), [_without_brackets(ending) for ending in row["endings"]]


def _without_brackets(text: str) -> str:
    """
    >>> _without_brackets("[header] How to sit [title] Find a chair. [step] Any will do. ")
    ' How to sit. Find a chair. Any will do.'
    """
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


RENDERINGS: dict[str, Callable[[dict[str, Any]], tuple[str, list[str]]]] = {
    "lecture": _lecture,
    "harness": _harness,
}


def as_choice(item: Item) -> Choice:
    """The item with its endings as choices, for a prompt that lists them."""
    return Choice(item.context, tuple(ending.strip() for ending in item.completions), item.label)


def encode_items(items: Sequence[Item], tokenizer: Tokenizer, block_size: int) -> list[Question]:
    """Items as ids, for a model that sees `block_size` positions.

    Context and completion are encoded apart and then joined, as in the lecture. GPT-2's pattern splits before a space,
    so with GPT-2's pattern, the joined ids are those of the joined text. An empty context (only an `Item` made by hand
    can have one) means the beginning of a document.

    If a text is longer than the window, its last part is kept: see `continuations.question`.
    """
    contexts = tokenizer.encode_batch([item.context for item in items])
    completions = iter(tokenizer.encode_batch([text for item in items for text in item.completions]))
    return [
        question(
            [(context, next(completions)) for _ in item.completions],
            block_size=block_size,
            eot=tokenizer.eot,
            label=item.label,
            characters=item.characters,
            decode=tokenizer.decode,
        )
        for item, context in zip(items, contexts, strict=True)
    ]


def hellaswag_scores(sums: Tensor) -> dict[str, float]:
    """Turns sums, added over all ranks, into values for metrics.jsonl.

    The number of items is one of the values: it says how sure the accuracies are.

    Shapes:
        sums  (4,)  items answered right by the sum, by the mean per token and by the sum per character; and all items
    Raises:
        ModelError: the model's output was not finite.

    >>> import torch
    >>> hellaswag_scores(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    {'hellaswag_acc': 0.25, 'hellaswag_acc_token': 0.5, 'hellaswag_acc_char': 0.75, 'hellaswag_items': 4}
    """
    by_sum, by_token, by_character, questions = sums.tolist()
    accuracies = {
        "hellaswag_acc": by_sum / questions,
        "hellaswag_acc_token": by_token / questions,
        "hellaswag_acc_char": by_character / questions,
    }
    return finite(accuracies) | {"hellaswag_items": int(questions)}
