"""The one door for JSON that others may have written: whatever is wrong with it is one kind of error, in one line."""

import codecs
import json
from pathlib import Path
from typing import Any

from myna.errors import MynaError
from myna.files import reading
from myna.paths import cannot_use

# Deeper than any file of ours or of the hub, and far from where Python gives up on comparing, printing or writing it.
MOST_NESTED = 100
_CONTAINERS = (dict, list)


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text, in UTF-8.

    Raises:
        ValueError: it is none, or can't be used: its brackets are nested too deeply, a number is too long. One line.
            Its kind UnicodeDecodeError where the bytes are not UTF-8.

    >>> parse_json('{"a": [1]}')
    {'a': [1]}
    >>> parse_json("[" * 200_000)
    Traceback (most recent call last):
    ValueError: its brackets are nested too deeply
    """
    text = data if isinstance(data, str) else data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(MOST_NESTED + 1):
        if not level:
            return value
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _CONTAINERS)
        ]
    raise ValueError("its brackets are nested too deeply")


def read_object(
    path: Path, error: type[MynaError], what_to_do: str, *, missing: str | None = None
) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        error, what_to_do: the kind of error where it can't be had, and the end of its line.
        missing: the line where there is no such file; None for what the system says.
    Raises:
        MynaError: of that kind: it is not there, or holds something else. UnreadableError: it can't be read.
    """
    try:
        with reading(path):
            data = path.read_bytes()
        value = parse_json(data)
    except OSError as problem:
        nothing = None if isinstance(problem, IsADirectoryError) else missing
        raise error(nothing or cannot_use(problem, path)) from problem
    except ValueError as problem:
        raise error(f"{path} is not JSON ({problem}); {what_to_do}") from problem
    if not isinstance(value, dict):
        raise error(f"{path} holds no JSON object; {what_to_do}")
    return value
