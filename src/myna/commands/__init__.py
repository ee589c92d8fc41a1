"""One file a command: the only place that composes the rooms.

Each module has `main(args)`, and imports what is heavy inside it, so that `myna --help` costs nothing.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro

from myna.errors import UsageError
from myna.paths import given_path, is_unicode, shown

T = TypeVar("T")


def parse(
    call: type[T],
    args: Sequence[str],
    *,
    command: str,
    default: T | None = None,
    description: str | None = None,
) -> T:
    """Reads a command's arguments into the dataclass `call`: its fields are the flags, its docstring the help.

    A wrong flag or type ends the process with exit code 2 and a panel on stderr that names the nearest right one.

    Raises:
        UsageError: an argument is not UTF-8, or a path that can't be one.
    """
    for arg in args:
        if not is_unicode(arg):
            raise UsageError(
                f"the argument {shown(arg)} is not UTF-8; rename a file or folder, give a text on standard input"
            )
    prog = f"myna {command}"
    if default is None:
        return _with_paths(tyro.cli(call, args=list(args), prog=prog, description=description))
    return _with_paths(tyro.cli(call, args=list(args), prog=prog, description=description, default=default))


def _with_paths(call: T) -> T:
    """The call with each of its paths taken through the door.

    Raises:
        UsageError: see `given_path`.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, call)):
        value = getattr(call, field.name)
        if isinstance(value, Path):
            changes[field.name] = given_path(value)
        elif isinstance(value, tuple) and any(isinstance(one, Path) for one in value):
            changes[field.name] = tuple(map(given_path, value))
    return dataclasses.replace(cast(Any, call), **changes)


def refuse_empty(args: Sequence[str]) -> None:
    """For a command none of whose arguments may be empty: as a path, an empty name would be the folder we are in.

    Raises:
        UsageError: one is.
    """
    for before, arg in zip(["", *args], args, strict=False):
        if arg == "" or (arg.startswith("--") and arg.endswith("=")):
            flag = arg.rstrip("=") or (before if before.startswith("--") else "")
            raise UsageError(f"{flag or 'an argument'} is empty; give a name, or leave it out")
