"""Choices: how many questions a model answers right, and a question with four choices as text.

Two styles: the model picks a letter, or the choice itself is the ending.

| style | the context | the endings |
|---|---|---|
| letters | the question, the choices as `A. `, `B. `, ... lines, `Answer:` | ` A`, ` B`, ... |
| ending | `Question: `, the question, `Answer:` | a space and the choice |

With letters, small models stay near chance for a long part of their training (OLMES, arXiv:2406.08446).

Sources:
    letters: Hendrycks et al. 2021, arXiv:2009.03300. The wording of both: lm-evaluation-harness, tasks `mmlu` and
    `mmlu_continuation`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from myna.evaluate.continuations import Question, Score, question, question_scores
from myna.model.network import Network
from myna.text.tokenizer import Tokenizer

Style = Literal["letters", "ending"]
LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Choice:
    """A question, its four choices, and the number of the right one."""

    question: str
    choices: tuple[str, ...]
    label: int

    def context(self, style: Style) -> str:
        """
        >>> print(Choice("2 + 2?", ("3", "4", "5", "6"), 1).context("letters"))
        2 + 2?
        A. 3
        B. 4
        C. 5
        D. 6
        Answer:
        """
        if style == "ending":
            return f"Question: {self.question.strip()}\nAnswer:"
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True)]
        return "\n".join([self.question.strip(), *lines, "Answer:"])

    def endings(self, style: Style) -> list[str]:
        """
        >>> Choice("2 + 2?", ("3", "4", "5", "6"), 1).endings("letters")
        [' A', ' B', ' C', ' D']
        """
        return [f" {ending}" for ending in (LETTERS if style == "letters" else self.choices)]

    def solved(self, style: Style) -> str:
        """The question with its answer, as an example before another question."""
        return self.context(style) + self.endings(style)[self.label] + "\n\n"


def encode_choices(
    choices: Sequence[Choice], before: str, style: Style, tokenizer: Tokenizer, block_size: int
) -> list[Question]:
    """Questions as ids, for a model that sees `block_size` positions.

    Args:
        before: the text in front of each question: its subject, and solved examples.
    """
    contexts = tokenizer.encode_batch([before + choice.context(style) for choice in choices])
    endings = iter(tokenizer.encode_batch([text for choice in choices for text in choice.endings(style)]))
    return [
        question(
            [(context, next(endings)) for _ in choice.choices],
            block_size=block_size,
            eot=tokenizer.eot,
            label=choice.label,
            characters=[len(text) - 1 for text in choice.endings(style)],
            decode=tokenizer.decode,
        )
        for choice, context in zip(choices, contexts, strict=True)
    ]


def choice_sums(
    model: Network,
    questions: Sequence[Question],
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_positions: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    on_questions: Callable[[int], None] | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Tensor:
    """One rank's share of the right answers.

    Args:
        questions: all of them, the same list on every rank, with `label` and `characters`, cut to this model's
            window.
        on_questions: called with the number of questions done after each batch.
        model, rank, world_size, batch_positions, autocast_dtype: see `continuations.question_scores`.
        before_batch: called before each batch, and equally often on every rank; it may raise to end the evaluation.
    Returns:
        (4,) float64 on the CPU: right by sum, right by mean per token, right by characters, questions. The first three
        are NaN where the model's output was not finite.
    """
    total = torch.zeros(4, dtype=torch.float64)
    batches = question_scores(
        model,
        questions,
        rank=rank,
        world_size=world_size,
        batch_positions=batch_positions,
        autocast_dtype=autocast_dtype,
        before_batch=before_batch,
    )
    for batch in batches:
        for number, scores in batch.items():
            total += torch.tensor(_right(questions[number], scores), dtype=torch.float64)
        if on_questions:
            on_questions(len(batch))
    return total


def cheapest(question: Question, scores: Sequence[Score]) -> tuple[int, int, int]:
    """The row with the least sum, the one with the least mean per token, and the one with the least per character.

    Of equal rows, the first one.

    Args:
        scores: all finite.
    """
    nats, tokens = [score.nats for score in scores], [score.tokens for score in scores]
    by_sum, by_token, by_character = (
        [n / by for n, by in zip(nats, unit, strict=True)]
        for unit in ([1] * len(nats), tokens, question.characters)
    )
    return by_sum.index(min(by_sum)), by_token.index(min(by_token)), by_character.index(min(by_character))


def _right(question: Question, scores: Sequence[Score]) -> list[float]:
    """For each reading, 1 if it is right and 0 if not; then 1, which counts the question."""
    # A cost that is not finite can't be compared.
    if not all(math.isfinite(score.nats) for score in scores):
        return [math.nan, math.nan, math.nan, 1.0]
    return [*(float(row == question.label) for row in cheapest(question, scores)), 1.0]
