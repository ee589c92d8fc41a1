"""Which column holds the documents, and what a conversation in it becomes."""

from typing import Any

from myna.data.conversations import choose_field, conversation_text
from myna.errors import DataError, TextError

COLUMNS = ("text", "content")


def conversation_document(value: Any, column: str) -> tuple[str | None, str]:
    """The document of a conversation, or None and what is wrong."""
    if value is None:
        return None, f"no conversation in {column!r}"
    try:
        return conversation_text(value), ""
    except TextError as error:
        return None, str(error)


def conversation_column(name: str, names: list[str]) -> str:
    found = choose_field(names)
    if found is None:
        raise DataError(
            f"{name}: which column holds the conversations? It has {', '.join(names) or 'none'}; name one with --column"
        )
    return found


def text_column(name: str, strings: list[str], all_names: list[str]) -> str:
    for column in COLUMNS:
        if column in strings:
            return column
    if len(strings) == 1:
        return strings[0]
    for column in COLUMNS:
        if column in all_names and not strings:
            raise DataError(
                f"{name}: its field {column!r} is not text; mend it, or name another with --column"
            )
    conversations = choose_field(all_names)
    if conversations:
        raise DataError(f"{name} holds conversations in {conversations!r}; prepare it with --conversations")
    raise DataError(
        f"{name}: which column holds the text? It has {', '.join(all_names) or 'none'}; name one with --column"
    )
