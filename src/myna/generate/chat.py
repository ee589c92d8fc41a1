"""A conversation with a model: what was said, and the next answer as it comes.

    chat = Chat(engine, Sampling(max_tokens=100))
    with chat.ask("What is BPE?") as answer:
        for text in answer: ...          # leaving the block early keeps what came

An answer is asked for with the newest turns that fit the model's window beside it. An engine that keeps the keys and
values of earlier texts (`prefix_bytes`) computes only what is new: each prompt begins with the one before.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

from myna.errors import OutputError, UsageError
from myna.files import write_atomic
from myna.generate.engine import FinishReason
from myna.generate.sampling import Sampling
from myna.generate.text import Continuation, TextEngine
from myna.text.chat import ASSISTANT, SYSTEM, USER, Message, check_messages, encode_prompt, stop_ids

MOST_ANSWER = 512


def answer_tokens(context: int) -> int:
    """New tokens of an answer, at most, where nobody says how many: half of a small context is the conversation's."""
    return min(MOST_ANSWER, max(1, context // 2))


class Chat:
    """One conversation.

    Args:
        engine: of a model whose tokenizer can chat; see `can_chat`.
        sampling: of every answer. `max_tokens` of the window are kept free for it. Answer n of a seed draws the random
            numbers of row n.
        system: the text of the system turn; None for none.
    Attributes:
        messages: the turns so far: the system's, if there is one, and pairs of a question and its answer.
    Raises:
        UsageError: `max_tokens` is 0, or leaves no room for a question. TextError: the system turn is empty.
    """

    def __init__(self, engine: TextEngine, sampling: Sampling, system: str | None = None):
        context = engine.engine.block_size
        if not 0 < sampling.max_tokens < context:
            raise UsageError(
                f"max-tokens is {sampling.max_tokens}, and the model's context {context}; give 1 or more, and leave "
                "room for what is asked"
            )
        self.engine, self.room = engine, context - sampling.max_tokens
        self.sampling = replace(sampling, stop_ids=stop_ids(engine.tokenizer), slide=False)
        self.n_asked = 0
        self.messages: list[Message] = []
        self.begin(system)

    def begin(self, system: str | None) -> None:
        """Begins anew, with that system turn.

        Raises:
            TextError: it is empty.
        """
        messages = [] if system is None else [Message(SYSTEM, system)]
        check_messages(messages)
        self.messages = messages

    def reset(self) -> None:
        """Begins anew, with the system turn that there is."""
        self.messages = [message for message in self.messages if message.role == SYSTEM]

    def ask(self, question: str) -> "Answer":
        """The answer to a question, to be read in a block of `with`.

        Raises:
            TextError: the question is empty, can't be encoded, or does not fit even without the earlier turns.
        """
        asked = Message(USER, question)
        check_messages([*self.messages, asked])
        prompt = encode_prompt(self.engine.tokenizer, [*self.messages, asked], self.room)
        (text,) = self.engine.add(prompt.ids, self.sampling, first_row=self.n_asked)
        self.n_asked += 1
        return Answer(self, asked, text, prompt.left_out)

    def save(self, path: Path) -> None:
        """Writes the conversation as a line of JSON with `messages`, as data for training has it.

        Raises:
            UsageError: nothing was said yet. OutputError: something is there already, or the place can't be written.
        """
        if all(message.role == SYSTEM for message in self.messages):
            raise UsageError("nothing was said yet, so there is nothing to save")
        if os.path.lexists(path):
            raise OutputError(f"{path} is there already; give another name")
        turns = [{"role": message.role, "content": message.content} for message in self.messages]
        line = json.dumps({"messages": turns}, ensure_ascii=False) + "\n"
        write_atomic(path, line.encode("utf-8"))


class Answer:
    """An answer as it comes: a block of `with`, in which it is iterated over. It gives the new text of each step.

    At the end of the block, whole or not, the question and what came of the answer are turns of the conversation. Where
    nothing came but white space, neither is: no conversation has an empty turn.

    Attributes:
        left_out: the oldest turns that the model was not given, in number.
        text: what came.
        finish_reason: see `Continuation`; None where the block was left before the end.
    """

    def __init__(self, chat: Chat, question: Message, text: Continuation, left_out: int):
        self.chat, self.question, self.left_out = chat, question, left_out
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self._text = text

    @property
    def n_new(self) -> int:
        """Tokens that came."""
        return self._text.n_new

    @property
    def is_empty(self) -> bool:
        """Whether nothing came that could be a turn."""
        return not self.text.strip()

    def __iter__(self) -> Iterator[str]:
        """
        Raises:
            ModelError: the model's output is not finite.
        """
        while self.finish_reason is None:
            new = ""
            for piece in self.chat.engine.step():
                if piece.new.error:
                    raise piece.new.error
                new += piece.text
            self.text, self.finish_reason = self.text + new, self._text.finish_reason
            yield new

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.chat.engine.remove(self._text)
        if not self.is_empty:
            self.chat.messages += [self.question, Message(ASSISTANT, self.text)]
