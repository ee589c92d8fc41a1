"""The one door for JSON that others may have written: whatever is wrong with it is one kind of error, in one line."""

import codecs
import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from myna.errors import MynaError
from myna.files import reading
from myna.paths import cannot_use

# Deeper than any file of ours or of the hub, and far from where Python gives up on comparing, printing or writing it.
MOST_NESTED = 100
# JavaScript's whole numbers are exact up to here.
MOST_WHOLE = 1 << 53
_CONTAINERS = (dict, list)
_KINDS: dict[type, str] = {
    dict: "a JSON object",
    list: "a list",
    str: "a text",
    int: "a whole number of 0 or more",
}
T = TypeVar("T")


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
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's limit on the digits of a whole number
        raise ValueError("a number in it has too many digits") from None
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


def field(record: Any, key: str, kind: type[T], of: str = "") -> T:
    """A field that a file of ours must have.

    Args:
        kind: dict, list, str, or int for a whole number, 0 or more.
        of: where the record stands in the file, such as "train"; nothing for the object that is the file.
    Raises:
        ValueError: the field is missing, or of another kind; names it, in one line.

    >>> field({"tokens": 7}, "tokens", int, "train")
    7
    >>> field({"tokens": "7"}, "tokens", int, "train")
    Traceback (most recent call last):
    ValueError: its field train.tokens is '7', not a whole number of 0 or more
    """
    if not isinstance(record, dict):
        raise ValueError(f"{f'its field {of}' if of else 'it'} is {reprlib.repr(record)}, not {_KINDS[dict]}")
    name = f"{of}.{key}" if of else key
    if key not in record:
        raise ValueError(f"its field {name} is missing")
    value = record[key]
    if not isinstance(value, kind) or (kind is int and whole(record, key) is None):
        raise ValueError(f"its field {name} is {reprlib.repr(value)}, not {_KINDS[kind]}")
    return value


def number(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a record; None where there is none.

    >>> number({"a": 1.5, "b": float("nan"), "c": "1", "d": True, "e": 10**400}, "a")
    1.5
    >>> [number({"b": float("nan"), "c": "1", "d": True, "e": 10**400}, key) for key in "bcdef"]
    [None, None, None, None, None]
    """
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(record: Mapping[str, Any], key: str) -> int | None:
    """A whole number of a record, 0 or more; None where there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_WHOLE:
        return None
    return value
