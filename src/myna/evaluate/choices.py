"""A question with four choices as text, in two styles: the model picks a letter, or the choice itself is the ending.

| style | the context | the endings |
|---|---|---|
| letters | the question, the choices as `A. `, `B. `, ... lines, `Answer:` | ` A`, ` B`, ... |
| ending | `Question: `, the question, `Answer:` | a space and the choice |

Small models stay near chance in the first style for long (OLMES, arXiv:2406.08446).

Sources:
    letters: Hendrycks et al. 2021, arXiv:2009.03300. Both, in these words: lm-evaluation-harness, tasks `mmlu` and
    `mmlu_continuation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from myna.evaluate.continuations import Question, question
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
        """The question with its answer, as an example before another one."""
        return self.context(style) + self.endings(style)[self.label] + "\n\n"


def encode_choices(
    choices: Sequence[Choice], before: str, style: Style, tokenizer: Tokenizer, block_size: int
) -> list[Question]:
    """Questions as ids, for a model that sees `block_size` positions.

    Args:
        before: the text in front of each: what they are about, and examples.
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
