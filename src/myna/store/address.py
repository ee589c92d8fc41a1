"""Addresses of other stores, such as s3://BUCKET/FOLDER, and what may be said of them."""

import os
import re
from typing import Any

from myna.errors import UsageError, first_line
from myna.paths import given_path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")


def is_url(given: str | os.PathLike[str]) -> bool:
    """Whether a person named a place on another store.

    >>> is_url("s3://bucket/runs"), is_url("simplecache::gs://bucket"), is_url("runs/a:0.5"), is_url("gpt2")
    (True, True, False, False)
    """
    return _URL.match(os.fspath(given)) is not None


def without_secrets(text: str) -> str:
    """A URL as it may be shown and kept: without a user's name and password, and without its query.

    >>> without_secrets("s3://key:secret@bucket/runs?token=abc")
    's3://bucket/runs'
    >>> without_secrets("--copy-to=ftp://me:pass@host/x")
    '--copy-to=ftp://host/x'
    """
    if "://" not in text:
        return text
    return re.sub(r"://[^/@]*@", "://", text.partition("?")[0])


def reason(error: BaseException) -> str:
    """An error of a store's library in a line: its kind and what it says, without secrets.

    >>> reason(OSError("403 from s3://me:pass@bucket/x\\nand more")), reason(TimeoutError())
    ('OSError: 403 from s3://bucket/x', 'TimeoutError')
    """
    kind, line = type(error).__name__, without_secrets(first_line(error))
    return kind if line == kind else f"{kind}: {line}"


def connect(place: str, flag: str = "") -> tuple[Any, str]:
    """The store of a URL, or of a folder of this machine, and the path in it. Some stores are asked at once.

    Args:
        flag: the flag that named the place, for the message.
    Returns:
        an fsspec file system, and the path as the file system writes it, without a last slash.
    Raises:
        UsageError: no such kind of URL, or its library is missing.
        Exception: of the store's library.
    """
    import fsspec

    if not is_url(place):
        place = str(given_path(place))
    try:
        store, root = fsspec.url_to_fs(place)
    except (ValueError, ImportError) as error:
        said = f"{flag} {without_secrets(place)}".strip()
        install = "; pip install 'myna[s3]'" if place.startswith(("s3:", "s3a:")) else ""
        raise UsageError(f"{said}: {reason(error)}; give a URL that fsspec knows{install}") from error
    return store, root.rstrip("/") or root
