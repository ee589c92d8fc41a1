"""HellaSwag: which of four endings goes on from the context? Chance is 25%.

A model that only continues text answers by likelihood: the ending whose tokens, after the context, cost it least.
Three readings of "least", all from the same log-probabilities:

    hellaswag_acc        the largest sum of log-probabilities                 (lm-evaluation-harness: acc)
    hellaswag_acc_token  the largest mean per token of the ending             (the lecture's; GPT-3's paper)
    hellaswag_acc_char   the largest sum divided by the characters (Unicode code points, not bytes) of the ending,
                         without the space before it                          (lm-evaluation-harness: acc_norm)

Two renderings of an item as text:

    lecture   context: `ctx` as it stands; completion: " " + ending. The default, and what training reports.
    harness   as lm-evaluation-harness's task `hellaswag` does: context: activity_label + ": " + ctx_a + " " + ctx_b
              with a capital; in context and endings " [title]" becomes ". ", other [brackets] (marks left from
              WikiHow) vanish, and double spaces become one. Its acc and acc_norm are hellaswag_acc and
              hellaswag_acc_char of this rendering.

Sources: Zellers et al. 2019, arXiv:1905.07830 (github.com/rowanz/hellaswag, MIT); build-nanogpt's hellaswag.py;
lm-evaluation-harness's tasks/hellaswag/utils.py and api/task.py.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from myna.errors import DataError
from myna.generate.engine import autocast, evaluation_mode
from myna.model.cache import KVCache
from myna.model.gpt2 import GPT
from myna.model.loss import head_token_nats
from myna.text.tokenizer import Tokenizer

Rendering = Literal["lecture", "harness"]

CHANCE = 0.25  # the accuracy of blind guesses: one ending of four

SOURCE = "the official file is hellaswag_val.jsonl of github.com/rowanz/hellaswag, folder data"


@dataclass(frozen=True)
class Item:
    """One question as text: `context`, then one of `completions` (each begins with a space)."""

    context: str
    completions: tuple[str, ...]
    characters: tuple[int, ...]  # of each ending, the space before it not counted
    label: int


@dataclass(frozen=True)
class Question:
    """One item as ids, cut to a model's window.

    `shared` comes before each of `rows`; the last `scored[i]` ids of `rows[i]` are the ending. At least one id of a
    row comes before them.
    """

    shared: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]
    characters: tuple[int, ...]
    label: int


def read_items(path: Path | str, rendering: Rendering = "lecture") -> list[Item]:
    """The items of a file in HellaSwag's official JSONL format.

    Raises:
        DataError: the file or a line of it is not what it should be; the message names the line.
    """
    path = Path(path)
    items = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    items.append(_item(line, f"{path}, line {number}", rendering))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; {SOURCE}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {SOURCE}") from error
    if not items:
        raise DataError(f"{path} has no items; {SOURCE}")
    return items


def _item(line: str, where: str, rendering: Rendering) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not a JSON object; {SOURCE}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; {SOURCE}")
    needed = ("ctx",) if rendering == "lecture" else ("activity_label", "ctx_a", "ctx_b")
    for name in needed:
        if not isinstance(row.get(name), str):
            raise DataError(f"{where}: no text in field {name!r}; {SOURCE}")
    if not row["ctx" if rendering == "lecture" else "ctx_a"].strip():  # ctx_b is empty in WikiHow's items
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
    label = str(row["label"])  # a number in the official file, a digit as text in some copies
    if not label.isdecimal() or int(label) >= len(endings):
        raise DataError(
            f"{where}: label {row['label']!r} is not the number of an ending (0 to {len(endings) - 1})"
        )
    context, endings = RENDERINGS[rendering](row)
    if not all(endings):
        raise DataError(f"{where}: an ending has no text left once its [brackets] are removed")
    # A context must not end in a space: the first token of the completion has its own (and so the harness moves it).
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


def encode_items(items: Sequence[Item], tokenizer: Tokenizer, block_size: int) -> list[Question]:
    """Items as ids, for a model that sees `block_size` positions.

    Context and completion are encoded apart and joined, as the lecture does (with GPT-2's pattern, which splits before
    a space, that is the same as encoding them together). An empty context stands for the beginning of a document.

    Of context plus completion the last block_size + 1 ids are kept (the last id is a target alone). Where a completion
    does not fit, the part of it that is kept is scored, and its own characters are counted.
    """
    contexts = tokenizer.encode_batch([item.context for item in items])
    completions = tokenizer.encode_batch([text for item in items for text in item.completions])
    rest = iter(completions)
    questions = []
    for item, ids in zip(items, contexts, strict=True):
        context, endings = ids or [tokenizer.eot], [next(rest) for _ in item.completions]
        questions.append(_question(item, context, endings, tokenizer, block_size))
    return questions


def _question(
    item: Item, context: list[int], endings: list[list[int]], tokenizer: Tokenizer, block_size: int
) -> Question:
    if len(context) + max(map(len, endings)) <= block_size + 1:
        rows = tuple((context[-1], *ending) for ending in endings)
        scored = tuple(map(len, endings))
        return Question(tuple(context[:-1]), rows, scored, item.characters, item.label)
    rows = tuple(tuple([*context, *ending][-block_size - 1 :]) for ending in endings)
    scored = tuple(min(len(ending), len(row) - 1) for row, ending in zip(rows, endings, strict=True))
    characters = tuple(
        whole if n == len(ending) else max(1, len(tokenizer.decode(ending[-n:])))
        for whole, n, ending in zip(item.characters, scored, endings, strict=True)
    )
    return Question((), rows, scored, characters, item.label)


def hellaswag_sums(
    model: GPT,
    questions: Sequence[Question],
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_positions: int = 4096,
    autocast_dtype: torch.dtype | None = None,
    on_questions: Callable[[int], None] | None = None,
) -> Tensor:
    """One rank's share of the right answers.

    Args:
        model: the network itself, not its compiled or DDP wrapper. Put in evaluation mode, and back afterwards.
        questions: all of them, the same list on every rank, from `encode_items` with this model's block_size.
        batch_positions: ids computed at once, padding counted; bounds the memory.
        on_questions: called with the number of questions done after each batch.
    Returns:
        (4,) float64 on the CPU: right by sum, right by mean per token, right by characters, questions.
    """
    total = torch.zeros(4, dtype=torch.float64)
    batches = list(_batches(questions, batch_positions))[rank::world_size]
    for batch in batches:
        nats = ending_nats(model, batch, autocast_dtype=autocast_dtype)  # (N, K)
        label = torch.tensor([question.label for question in batch])
        tokens = torch.tensor([question.scored for question in batch])
        characters = torch.tensor([question.characters for question in batch])
        right = [(cost.argmin(dim=1) == label).sum() for cost in (nats, nats / tokens, nats / characters)]
        total += torch.tensor([*right, len(batch)], dtype=torch.float64)
        if on_questions:
            on_questions(len(batch))
    return total


def hellaswag_scores(sums: Tensor) -> dict[str, float]:
    """Sums, added over the ranks, to the keys of metrics.jsonl; with the number of items, which says how sure they are.

    >>> hellaswag_scores(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    {'hellaswag_acc': 0.25, 'hellaswag_acc_token': 0.5, 'hellaswag_acc_char': 0.75, 'hellaswag_items': 4}
    """
    by_sum, by_token, by_character, questions = sums.tolist()
    return {
        "hellaswag_acc": by_sum / questions,
        "hellaswag_acc_token": by_token / questions,
        "hellaswag_acc_char": by_character / questions,
        "hellaswag_items": int(questions),
    }


def standard_error(accuracy: float, items: int) -> float:
    """How far an accuracy over so many items lies from the one over all that could be asked: one deviation.

    >>> round(standard_error(0.2945, 10_042), 4), round(standard_error(0.2945, 500), 4)
    (0.0045, 0.0204)
    """
    return math.sqrt(accuracy * (1 - accuracy) / items)


def _batches(questions: Iterable[Question], batch_positions: int) -> Iterator[list[Question]]:
    """Questions that can be computed together: equally long `shared`, equally many rows, of similar lengths."""

    def shape(question: Question) -> tuple[int, int]:
        return len(question.shared), len(question.rows)

    def longest(question: Question) -> int:
        return max(map(len, question.rows))

    for (shared, rows), group in groupby(sorted(questions, key=lambda q: (shape(q), longest(q))), key=shape):
        batch: list[Question] = []
        for question in group:  # from short to long, so the newest is the longest
            if batch and (len(batch) + 1) * rows * (shared + longest(question)) > batch_positions:
                yield batch
                batch = []
            batch.append(question)
        yield batch


@torch.no_grad()
def ending_nats(
    model: GPT, batch: Sequence[Question], *, autocast_dtype: torch.dtype | None = None
) -> Tensor:
    """What each ending costs the model after its context: minus the sum of its tokens' log-probabilities.

    The shared part is computed once a question, and its keys and values serve all its rows. Rows are padded on the
    right, where causal attention never looks.

    Shapes:
        batch    N questions of K rows, with equally long `shared`
        returns  (N, K) float64 nats on the CPU
    """
    device, config = model.device, model.config
    rows = [torch.tensor(row) for question in batch for row in question.rows]
    scored = torch.tensor([n for question in batch for n in question.scored])
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)  # (N*K, T+1)
    T = ids.shape[1] - 1
    at = torch.arange(T)  # position t predicts id t + 1, which is scored if it is among a row's last
    wanted = ((at >= (lengths - scored - 1)[:, None]) & (at < (lengths - 1)[:, None])).to(device)  # (N*K, T)
    with evaluation_mode(model), autocast(device, autocast_dtype):
        dtype = autocast_dtype or model.wte.weight.dtype
        shared = torch.tensor(
            [question.shared for question in batch], dtype=torch.int64, device=device
        )  # (N, S)
        S = shared.shape[1]
        room = KVCache(dataclasses.replace(config, block_size=S + T), len(rows), device, dtype)
        if S:
            once = KVCache(dataclasses.replace(config, block_size=S), len(batch), device, dtype)
            model.hidden(shared, once)
            for source, copy in zip(once.layers, room.layers, strict=True):
                copy.keys[:, :, :S] = source.keys.repeat_interleave(len(rows) // len(batch), dim=0)
                copy.values[:, :, :S] = source.values.repeat_interleave(len(rows) // len(batch), dim=0)
            room.length = S
        hidden = model.hidden(ids[:, :-1], room)  # (N*K, T, C)
        nats = head_token_nats(hidden[wanted], model.wte.weight, ids[:, 1:][wanted], model.config.vocab_size)
        nats = nats.cpu().double()
    row_of = torch.arange(len(rows)).repeat_interleave(scored)
    return torch.zeros(len(rows), dtype=torch.float64).index_add(0, row_of, nats).view(len(batch), -1)
