"""Conversations as documents: the layouts that they come in, and the one in which `prepare` hands them on.

    {"messages": [{"role": "user", "content": "Hi"}, ...]}            OpenAI's and Hugging Face's
    {"conversations": [{"from": "human", "value": "Hi"}, ...]}        ShareGPT's

A document is the conversation's text: JSON, [[role, content], ...], the same for every layout. So it has a hash, which
decides its split as any other document's does.
"""

import json
from collections.abc import Sequence
from typing import Any

from myna.text.characters import check_text
from myna.text.chat import ASSISTANT, SYSTEM, USER, Message, read_messages

FIELDS = ("messages", "conversations")
SHAREGPT_ROLES = {"human": USER, "gpt": ASSISTANT, "system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def conversation_text(value: Any) -> str:
    """The document of a conversation, of either layout.

    Raises:
        TextError: it is no conversation, see `read_messages`; or a lone surrogate.

    >>> conversation_text([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}])
    '[["user", "Hi"], ["assistant", "Hello"]]'
    """
    if isinstance(value, list):
        value = [_from_sharegpt(turn) for turn in value]
    messages = read_messages(value)
    for message in messages:
        check_text(message.content)
    return json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)


def _from_sharegpt(turn: Any) -> Any:
    if isinstance(turn, dict) and "from" in turn and turn.get("role") is None:
        role = turn["from"]
        return {
            "role": SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role,
            "content": turn.get("value"),
        }
    return turn


def messages_of(document: str) -> list[Message]:
    """The inverse of `conversation_text`."""
    return [Message(role, content) for role, content in json.loads(document)]


def is_answered(messages: Sequence[Message]) -> bool:
    """Whether there is something to learn from it: a turn of the assistant."""
    return any(message.role == ASSISTANT for message in messages)


def choose_field(names: Sequence[str]) -> str | None:
    """Which field of an object, or column of a table, holds conversations; None where none has such a name."""
    return next((field for field in FIELDS if field in names), None)
