"""One file a command: the only place that composes the rooms.

Each module has `main(args)`, and imports what is heavy inside it, so that `myna --help` costs nothing.
"""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro

from myna.commands.field_help import described, give_help
from myna.errors import UsageError
from myna.paths import given_path, is_unicode, shown
from myna.settings import flag

T = TypeVar("T")
MOST = 1 << 63


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
    options: dict[str, Any] = {
        "args": list(args),
        "prog": f"myna {command}",
        "description": described(call) if description is None else description,
    }
    if default is not None:
        options["default"] = default
    give_help(call, default)
    try:
        read = tyro.cli(call, **options)
        _refuse_endless(read)
        return _with_paths(read)
    except SystemExit as ending:
        if ending.code:
            with contextlib.redirect_stderr(io.StringIO()) as panel, contextlib.suppress(SystemExit):
                tyro.cli(
                    call, **options
                )  # once more, for what it says: a panel on a terminal can't be read back
            if hint := _hint_of_dash(panel.getvalue(), args):
                print(f"myna {command}: {hint}", file=sys.stderr)
        raise


def _hint_of_dash(panel: str, args: Sequence[str]) -> str | None:
    """How to write a value that begins with a dash, where the parser took one for a flag.

    >>> _hint_of_dash("Missing value for argument '--prompt'.", ["gpt2", "--prompt", "-x"])
    'if -x is the value of --prompt, write --prompt=-x'
    >>> _hint_of_dash("Missing value for argument 'text'.", ["-x"])
    'if -x is no flag, write it last, after --'
    """
    for name in re.findall(r"Missing value for argument '(\S+)'", panel):
        for before, arg in zip(["", *args], args, strict=False):
            if before == name and arg.startswith("-"):
                return f"if {arg} is the value of {name}, write {name}={arg}"
            if not name.startswith("-") and re.match("-[^-]", arg):
                return f"if {arg} is no flag, write it last, after --"
    return None


def _refuse_endless(call: Any) -> None:
    """
    Raises:
        UsageError: a number has more than 63 bits; neither the system nor a fraction takes it.
    """
    for field in dataclasses.fields(call):
        value = getattr(call, field.name)
        if dataclasses.is_dataclass(value):
            _refuse_endless(value)
        elif isinstance(value, int) and abs(value) >= MOST:
            raise UsageError(f"{flag(field.name)} has {len(str(abs(value)))} digits; give less than 2^63")


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


def write_any_character() -> None:
    """A character that the terminal can't show becomes a question mark: a model's text may hold any."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def refuse_empty(args: Sequence[str], but: Sequence[str] = ()) -> None:
    """For a command whose arguments may not be empty: as a path, an empty name would be the folder we are in.

    Args:
        but: flags that take an empty text.
    Raises:
        UsageError: one is.
    """
    for before, arg in zip(["", *args], args, strict=False):
        if arg == "" or (arg.startswith("--") and arg.endswith("=")):
            flag = arg.rstrip("=") or (before if before.startswith("--") else "")
            if flag in but:
                continue
            raise UsageError(f"{flag or 'an argument'} is empty; give a name, or leave it out")
