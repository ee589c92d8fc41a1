"""One question in full: its rows, what is scored of them, what each token costs, and which ending that chooses.

The numbers are the evaluation's own: `question_scores` computes them, and `choices.cheapest` chooses.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from myna.errors import TokenizerError
from myna.evaluate.choices import cheapest
from myna.evaluate.continuations import Question, Score, question_scores
from myna.evaluate.finite import finite
from myna.model.network import Network
from myna.text.render import legible
from myna.text.tokenizer import Tokenizer

COLUMNS = 110
READINGS = {"acc": "sum", "acc_token": "per token", "acc_char": "per character"}


@dataclass(frozen=True)
class Explained:
    """A question and its scores.

    Attributes:
        context: of each row, its tokens before the ending, legible.
        ending: of each row, the tokens that are scored.
    """

    question: Question
    scores: tuple[Score, ...]
    context: tuple[tuple[str, ...], ...]
    ending: tuple[tuple[str, ...], ...]

    def costs(self, row: int) -> dict[str, float]:
        """Of a row's ending, nats in each of the readings."""
        score = self.scores[row]
        units = (1, score.tokens, self.question.characters[row])
        return {name: score.nats / unit for name, unit in zip(READINGS, units, strict=True)}

    def chosen(self) -> dict[str, int]:
        """The row that each reading chooses."""
        return dict(zip(READINGS, cheapest(self.question, self.scores), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: the mask is 1 at the tokens that are scored."""
        rows = []
        for row, (ids, scored) in enumerate(zip(self.question.rows, self.question.scored, strict=True)):
            costs = self.costs(row)
            rows.append({
                "ids": list(ids),
                "tokens": [*self.context[row], *self.ending[row]],
                "mask": [0] * (len(ids) - scored) + [1] * scored,
                "token_nats": list(self.scores[row].token_nats),
                "characters": self.question.characters[row],
                "nats": costs["acc"],
                "nats_per_token": costs["acc_token"],
                "nats_per_character": costs["acc_char"],
            })  # fmt: skip
        chosen = {f"chosen_by_{name}": row for name, row in self.chosen().items()}
        return {"rows": rows, **chosen, "right": self.question.label, "cut": self.question.cut}

    def lines(self) -> list[str]:
        """As a terminal can show it."""
        same = len(set(self.context)) == 1
        shown = [f"right: ending {self.question.label}"]
        if self.question.cut:
            shown.append(
                f"the first {self.question.cut:,} tokens do not fit the model's window, and are left out"
            )
        if same:
            shown += self._context(0)
        for row, score in enumerate(self.scores):
            right = ", the right one" if row == self.question.label else ""
            shown += ["", f"ending {row}{right}: {score.tokens} tokens, mask 1: each with its loss in nats"]
            shown += [] if same else self._context(row)
            pairs = zip(self.ending[row], score.token_nats, strict=True)
            shown += _wrapped([f"{token}\N{NO-BREAK SPACE}{nats:.2f}" for token, nats in pairs], "   ")
        return [*shown, "", *self._table()]

    def _context(self, row: int) -> list[str]:
        tokens = self.context[row]
        return [f"context: {len(tokens)} tokens, mask 0: read, and not scored", *_wrapped(tokens, " ")]

    def _table(self) -> list[str]:
        heads = [f"{name} ({READINGS[name]})" for name in READINGS]
        lines = ["nats        tokens  characters" + "".join(f"{head:>26}" for head in heads)]
        for row, score in enumerate(self.scores):
            costs = "".join(f"{cost:>26.4f}" for cost in self.costs(row).values())
            lines.append(f"ending {row}    {score.tokens:>6}  {self.question.characters[row]:>10}{costs}")
        chosen = [
            f"ending {row}, {'right' if row == self.question.label else 'wrong'}"
            for row in self.chosen().values()
        ]
        return [*lines, f"{'the least is chosen':<30}" + "".join(f"{one:>26}" for one in chosen)]


def _wrapped(words: Sequence[str], between: str) -> list[str]:
    """Words over lines of the terminal's width; none is broken."""
    lines = textwrap.wrap(
        "\t".join(words), COLUMNS, break_long_words=False, break_on_hyphens=False, expand_tabs=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip
    return ["  " + line.replace("\t", between).replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def explained(
    network: Network,
    question: Question,
    tokenizer: Tokenizer,
    *,
    autocast_dtype: torch.dtype | None = None,
) -> Explained:
    """Scores a question as the evaluation does.

    Args:
        question: with `label` and `characters`, cut to this model's window.
    Raises:
        ModelError: the model's output is not finite.
    """
    (found,) = question_scores(network, [question], autocast_dtype=autocast_dtype)
    scores = found[0]
    finite({f"the loss of ending {row}": score.nats for row, score in enumerate(scores)})
    context, ending = [], []
    for ids, scored in zip(question.rows, question.scored, strict=True):
        tokens = tuple(_legible(tokenizer, id) for id in ids)
        context.append(tokens[:-scored])
        ending.append(tokens[-scored:])
    return Explained(question, scores, tuple(context), tuple(ending))


def _legible(tokenizer: Tokenizer, id: int) -> str:
    try:
        return legible(tokenizer.token_bytes(id))
    except TokenizerError:  # an id that stands for nothing
        return f"<{id}>"
