"""Conversations in ids: ChatML, where two special tokens frame each turn.

    <|endoftext|><|im_start|>user
    What is BPE?<|im_end|>
    <|im_start|>assistant
    A way to ...<|im_end|>

What a person wrote never becomes a special token: it is encoded as ordinary text, and the frames are put around it as
ids. `vocabulary.CHAT_TEMPLATE` is the same rule for transformers, whose `apply_chat_template` gives the same ids. (It
joins everything to one text first. So where a text spells a special token, theirs is that token, and ours stays text.)

Source: ChatML, OpenAI 2023, as the chat templates of Hugging Face's libraries write it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from myna.errors import TextError, TokenizerError
from myna.text.tokenizer import Tokenizer
from myna.text.vocabulary import CHAT_TOKENS, TURN_END, TURN_START

SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")


class TooLongError(TextError):
    """The newest turn does not fit a model's context, even alone."""


@dataclass(frozen=True)
class Message:
    """One turn: who says what. `role` is one of `ROLES`."""

    role: str
    content: str


def read_messages(raw: Any) -> tuple[Message, ...]:
    """A conversation from JSON: a list of objects with `role` and `content`, as OpenAI and Hugging Face write it.

    A content may also be a list of parts of the kind `{"type": "text", "text": ...}`, which are joined.

    Raises:
        TextError: it is none; says which turn is wrong, counted from 1.

    >>> read_messages([{"role": "user", "content": "Hi"}])
    (Message(role='user', content='Hi'),)
    """
    if not isinstance(raw, list) or not raw:
        raise TextError("a conversation is a list of turns, one or more")
    messages = []
    for number, turn in enumerate(raw, start=1):
        if not isinstance(turn, Mapping):
            raise TextError(f"turn {number} is no object with role and content")
        messages.append(Message(turn.get("role"), _text_of(turn.get("content"), number)))  # type: ignore[arg-type]
    check_messages(messages)
    return tuple(messages)


def _text_of(content: Any, number: int) -> str:
    if isinstance(content, list):
        texts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
            for part in content
        ]
        if not all(isinstance(text, str) for text in texts):
            raise TextError(f"turn {number} has a part that is no text; only text can be used")
        return "".join(map(str, texts))
    if not isinstance(content, str):
        raise TextError(f"the content of turn {number} is no text")
    return content


def check_messages(messages: Sequence[Message]) -> None:
    """Refuses what is no conversation: an optional system turn, then user and assistant in turn, none of them empty.

    Raises:
        TextError: says which turn is wrong, counted from 1.
    """
    expected = USER
    for number, message in enumerate(messages, start=1):
        if message.role not in ROLES:
            raise TextError(f"turn {number} has the role {message.role!r}; the roles are {', '.join(ROLES)}")
        if not message.content.strip():
            raise TextError(f"turn {number} ({message.role}) is empty")
        if message.role == SYSTEM:
            if number > 1:
                raise TextError(f"turn {number} is of the system; only the first can be")
            continue
        if message.role != expected:
            raise TextError(
                f"turn {number} is of the {message.role}, where the {expected} should speak; user and assistant take "
                "turns, the user first"
            )
        expected = ASSISTANT if expected == USER else USER


def can_chat(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer has the special tokens of a conversation."""
    return set(CHAT_TOKENS) <= set(tokenizer.special_tokens)


def require_chat(tokenizer: Tokenizer, what: str) -> None:
    """Raises TokenizerError, which says how to get a model that can chat.

    Args:
        what: names the model.
    """
    if not can_chat(tokenizer):
        raise TokenizerError(
            f"{what} has no chat tokens ({', '.join(CHAT_TOKENS)}), so it was not trained on conversations; train it "
            "on some: myna prepare CORPUS --conversations --tokenizer MODEL --out DATA, then "
            "myna train --init MODEL --data DATA"
        )


@dataclass(frozen=True)
class Turn:
    """The ids of one turn, frames and all.

    Attributes:
        ids: `<|im_start|>`, role, content, `<|im_end|>`, and a line's end.
        scored: of each id, whether a model learns to write it: the assistant's words and its `<|im_end|>`.
    """

    message: Message
    ids: list[int]
    scored: list[bool]


def encode_turn(tokenizer: Tokenizer, message: Message) -> Turn:
    """The ids of one turn.

    Role and content are one text to the tokenizer, as they are to transformers. An id that holds the end of the role's
    line and the beginning of an assistant's words (which then begin with white space) is not scored.

    Raises:
        TextError: a lone surrogate. TokenizerError: the tokenizer has no chat tokens, or an id has no bytes of its own.
    """
    special, head = tokenizer.special_tokens, f"{message.role}\n"
    said, after = tokenizer.encode(head + message.content), tokenizer.encode("\n")
    ids = [special[TURN_START], *said, special[TURN_END], *after]
    scored = [False] * len(ids)
    if message.role == ASSISTANT:
        unscored = at = 0
        while at < len(head):
            at += len(tokenizer.token_bytes(said[unscored]))
            unscored += 1
        answer = slice(1 + unscored, 2 + len(said))
        scored[answer] = [True] * len(ids[answer])
    return Turn(message, ids, scored)


def encode_conversation(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """A whole conversation: its ids, which begin with the end-of-text id, and which of them are scored."""
    turns = [encode_turn(tokenizer, message) for message in messages]
    ids = [tokenizer.eot, *(id for turn in turns for id in turn.ids)]
    return ids, [False, *(scored for turn in turns for scored in turn.scored)]


def answer_head(tokenizer: Tokenizer) -> list[int]:
    """What stands before an answer: a model goes on from here."""
    return [tokenizer.special_tokens[TURN_START], *tokenizer.encode(f"{ASSISTANT}\n")]


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end an answer."""
    return frozenset((tokenizer.special_tokens[TURN_END], tokenizer.eot))


@dataclass(frozen=True)
class ChatPrompt:
    """What a model is asked to go on from.

    Attributes:
        ids: the turns that fit, and the head of the answer.
        left_out: the oldest turns that did not fit, in number.
    """

    ids: list[int]
    left_out: int


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], room: int | None = None) -> ChatPrompt:
    """The prompt for the next answer, of the newest turns that fit.

    The system turn always stays. What is kept begins with a turn of the user.

    Args:
        messages: as `check_messages` wants them; the last is the user's.
        room: ids at most; None for all turns.
    Raises:
        TextError: the last turn is not the user's. TooLongError: it does not fit, even alone. Others: see
            `encode_turn`.
    """
    if not messages or messages[-1].role != USER:
        raise TextError("the last turn must be the user's: it is what the assistant answers")
    turns = [encode_turn(tokenizer, message).ids for message in messages]
    system = turns[:1] if messages[0].role == SYSTEM else []
    rest, roles = turns[len(system) :], [message.role for message in messages[len(system) :]]
    before, after = [tokenizer.eot, *chain(*system)], answer_head(tokenizer)
    taken = len(before) + sum(map(len, rest)) + len(after)
    first = 0
    while room is not None and taken > room:
        taken -= len(rest[first])
        first += 1
        while first < len(rest) and roles[first] != USER:
            taken -= len(rest[first])
            first += 1
        if first == len(rest):
            what = "the system turn and the last turn need" if system else "the last turn needs"
            raise TooLongError(
                f"{what} more than the {room} tokens that the model's context has for messages; shorten it"
            )
    return ChatPrompt([*before, *chain(*rest[first:]), *after], first)


def with_chat_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the special tokens of a conversation; itself where it has them.

    Raises:
        TokenizerError: it has no end-of-text token, or is no byte-level BPE of ours.
    """
    _ = tokenizer.eot  # without one, the end of a turn would be taken for the end of text
    return tokenizer.with_special_tokens(CHAT_TOKENS)
