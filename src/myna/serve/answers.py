"""JSON as the server sends it."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


def json_bytes(value: Any) -> bytes:
    """In UTF-8; a lone surrogate, which UTF-8 cannot say, is escaped.

    Objects in a list are encoded one by one: the encoder holds Python's lock for as long as it works on one value, and
    a long text's tokens would keep everybody else waiting.

    Raises:
        ValueError: a number is not finite.

    >>> json_bytes({"text": "é", "tokens": [1, 2]})
    b'{"text":"\\xc3\\xa9","tokens":[1,2]}'
    >>> json_bytes({"text": "\\ud800"})
    b'{"text":"\\\\ud800"}'
    """
    return _encoded(value).encode("utf-8", errors="backslashreplace")


def _encoded(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_plain(str(key))}:{_encoded(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "[" + ",".join(map(_plain, value)) + "]"
    return _plain(value)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Its bytes."""
        return json_bytes(content)
