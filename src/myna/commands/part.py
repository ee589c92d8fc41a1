"""`--part I/N`: the share of a work that one of several machines does."""

import re

from myna.errors import UsageError


def read_part(text: str | None) -> tuple[int, int] | None:
    """I/N; parts count from 1.

    Raises:
        UsageError: it is no such part.

    >>> read_part("3/7")
    (3, 7)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--part is {text!r}; give I/N with I from 1 to N, as in 1/2")
    return int(found[1]), int(found[2])
