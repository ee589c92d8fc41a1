"""CORE: one number for a base model, the mean of 22 tasks' accuracies, each measured from chance.

A task's centred accuracy is (accuracy - chance) / (1 - chance): 0 is guessing, 1 is all right. CORE is the mean of all
22, so a bundle without one of them has none. The bundle's tasks and their text are in core_bundle.py; here an item
becomes ids, and its costs become right or wrong.

What is scored of each text, as the published numbers have it: of multiple_choice what comes after the ids that all
choices begin with; of schema the ids that all contexts end in; of language_modeling what comes after the context. A
choice that another one begins with has nothing left to score. It counts as chosen where it is the first, else never:
the published scorer compares a mean over nothing.

Sources:
    DCLM, arXiv:2406.11794; the scoring: nanochat, nanochat/core_eval.py
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from myna.errors import DataError
from myna.evaluate.accuracy import standard_error
from myna.evaluate.continuations import Question, Score, question_scores
from myna.evaluate.continuations import question as question_of
from myna.evaluate.core_bundle import Task, is_whole
from myna.evaluate.finite import finite
from myna.evaluate.trees import common
from myna.model.network import Network
from myna.text.tokenizer import Tokenizer

CHUNK_ITEMS = 512  # encoded at once; a whole task would be tens of millions of ids


@dataclass(frozen=True)
class Answering:
    """An item as ids.

    Attributes:
        question: of the rows that have something to score; None where none has.
        rows: their numbers among all.
        gold: the number of the right one.
    """

    question: Question | None
    rows: tuple[int, ...]
    gold: int

    def is_right(self, scores: Sequence[Score], kind: str) -> float:
        """1 or 0; NaN where the model's output was not finite."""
        if not all(math.isfinite(score.nats) for score in scores):
            return math.nan
        if kind == "language_modeling":
            return float(scores[0].greedy)
        if 0 not in self.rows:
            return float(self.gold == 0)
        means = [score.nats / score.tokens for score in scores]
        return float(self.rows[means.index(min(means))] == self.gold)


def encode_items(
    task: Task, numbers: Sequence[int], tokenizer: Tokenizer, block_size: int
) -> Iterator[Answering]:
    """Items as ids, for a model that sees `block_size` positions. Of longer ones the last `block_size` ids are kept.

    Raises:
        DataError: the continuation of an item adds no token to its context; names the item.
    """
    texts = [task.texts(number) for number in numbers]
    rows = iter(tokenizer.encode_batch([text for of_item in texts for text in of_item]))
    is_model = task.kind == "language_modeling"
    contexts = tokenizer.encode_batch([task.context(number) for number in numbers] if is_model else [])
    for place, (number, of_item) in enumerate(zip(numbers, texts, strict=True)):
        ids = [[tokenizer.eot, *next(rows)] for _ in of_item]
        if is_model:
            starts = [_common([ids[0], [tokenizer.eot, *contexts[place]]])]
            if starts[0] == len(ids[0]):
                raise DataError(
                    f"{task.label}, item {number + 1}: its continuation adds no token to the context"
                )
        elif task.kind == "schema":
            ending = _common([row[::-1] for row in ids])
            starts = [len(row) - ending for row in ids]
        else:
            starts = [_common(ids)] * len(ids)
        kept = tuple(
            n for n, (row, start) in enumerate(zip(ids, starts, strict=True)) if 0 < start < len(row)
        )
        pairs = [(ids[n][: starts[n]], ids[n][starts[n] :]) for n in kept]
        # One position less than the window could hold: the published scorer cuts the whole row, its last id too.
        made = question_of(pairs, block_size=max(1, block_size - 1), eot=tokenizer.eot) if pairs else None
        yield Answering(made, kept, task.items[number].gold)


def _common(rows: Sequence[list[int]]) -> int:
    """How many ids all rows begin with: as many as the first and the last in alphabetical order.

    >>> _common([[1, 2, 3], [1, 2], [1, 2, 4]])
    2
    """
    return common(min(rows), max(rows))


def core_sums(
    network: Network,
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_questions: int | None = None,
    batch_positions: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    on_items: Callable[[int], None] | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Tensor:
    """One rank's share of the right answers.

    Args:
        on_items: called with the number of items done after each batch.
        others: see `continuations.question_scores`.
    Returns:
        (tasks, 3) float64 on the CPU: items that are right, items, items that did not fit the window. The first is NaN
        where the model's output was not finite.
    """
    sums = torch.zeros(len(tasks), 3, dtype=torch.float64)
    for task, total in zip(tasks, sums, strict=True):
        for first in range(0, len(task.items), CHUNK_ITEMS):
            numbers = range(first, min(first + CHUNK_ITEMS, len(task.items)))
            items = list(encode_items(task, numbers, tokenizer, network.config.block_size))
            asked = [(item, item.question) for item in items if item.question]
            if rank == 0:  # what needs no model
                known = [item for item in items if not item.question]
                total += torch.tensor([sum(item.gold == 0 for item in known), len(known), 0])
                if on_items and known:
                    on_items(len(known))
            batches = question_scores(
                network,
                [question for _, question in asked],
                rank=rank,
                world_size=world_size,
                batch_questions=batch_questions,
                batch_positions=batch_positions,
                autocast_dtype=autocast_dtype,
                before_batch=before_batch,
            )
            for batch in batches:
                for number, scores in batch.items():
                    item, question = asked[number]
                    right = item.is_right(scores, task.kind)
                    total += torch.tensor([right, 1, question.cut > 0], dtype=torch.float64)
                if on_items:
                    on_items(len(batch))
    return sums


def core_scores(sums: Tensor, tasks: Sequence[Task]) -> dict[str, float]:
    """Sums, added over the ranks, to accuracies, centred accuracies and, of all 22 tasks, CORE.

    The standard error of CORE takes the tasks as independent.

    Raises:
        ModelError: the model's output was not finite.
    """
    found: dict[str, float] = {}
    centred, variance = [], 0.0
    for task, (right, items, cut) in zip(tasks, sums.tolist(), strict=True):
        accuracy = finite({f"core_acc/{task.label}": right / items})[f"core_acc/{task.label}"]
        error, room = standard_error(accuracy, int(items)), 1 - task.chance
        centred.append((accuracy - task.chance) / room)
        variance += (error / room) ** 2
        found |= {
            f"core_acc/{task.label}": accuracy,
            f"core_acc_stderr/{task.label}": error,
            f"core_chance/{task.label}": task.chance,
            f"core_centred/{task.label}": centred[-1],
            f"core_centred_stderr/{task.label}": error / room,
            f"core_shots/{task.label}": task.shots,
            f"core_items/{task.label}": int(items),
            f"core_cut/{task.label}": int(cut),
        }
    if not is_whole(tasks):
        return found
    whole = {
        "core": sum(centred) / len(tasks),
        "core_stderr": math.sqrt(variance) / len(tasks),
        "core_chance": 0.0,
    }
    return whole | found
