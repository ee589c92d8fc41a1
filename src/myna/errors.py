"""Everything that can go wrong, as one small tree.

An error that a person can mend is a `MynaError`. Its message is one line that says what is wrong, where, and
what to do about it; the command line prints that line and exits with `exit_code`. Anything else that escapes
is a defect of ours: it keeps its traceback and exits 1.

    MynaError              exit 2
    ├── UsageError         a wrong option, recipe or combination of them
    ├── TextError          text that cannot be encoded: lone surrogates, bytes that are not UTF-8
    ├── TokenizerError     a file that is no tokenizer, ids outside the vocabulary, an impossible vocabulary
    ├── DataError          a corpus or dataset that is missing, empty, too short, damaged, or of another tokenizer
    ├── DownloadError      a file that could not be fetched, or is not the file it should be
    ├── ModelError         an impossible shape, or weights that don't fit it
    ├── CheckpointError    a checkpoint that is damaged or was never whole
    ├── UnreadableError    a file or folder that is there, and that the system does not give: no sign of damage
    ├── DeviceError        a device or precision that this machine does not have
    ├── RankError          another rank of a distributed run died, hangs, or met an error
    ├── OutputError        a place that can't be written, or that holds something else
    ├── DivergedError      training met a NaN or an infinity
    ├── ChildError         exit 1: a process that was started for a part of the work failed in it
    └── Stopped            exit 75: a signal ended the work, and what was done is saved

Between processes an error travels as a small JSON object: see `to_record` and `from_record`.
"""

import difflib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any


class MynaError(Exception):
    """Base of all errors with a message for a person."""

    exit_code = 2
    told = False  # another rank has printed it


class UsageError(MynaError):
    """A wrong option, recipe or combination of them."""


class TextError(MynaError):
    """Text that cannot be encoded."""


class TokenizerError(MynaError):
    """Not a tokenizer, or one that cannot do what was asked."""


class DataError(MynaError):
    """A corpus or dataset that cannot be used."""


class DownloadError(MynaError):
    """A file that could not be fetched whole and verified."""


class ModelError(MynaError):
    """A model shape that is impossible, or weights that don't fit it."""


class CheckpointError(MynaError):
    """A checkpoint that is damaged or incomplete."""


class UnreadableError(MynaError):
    """A file or folder that is there and can't be read: permission, a disk, a network. No sign of damage."""


class DeviceError(MynaError):
    """A device or precision that this machine does not have."""


class RankError(MynaError):
    """Another rank of a distributed run was lost."""


class OutputError(MynaError):
    """A place that can't be written, or holds something that must not be overwritten."""


class DivergedError(MynaError):
    """A loss or gradient that is not finite.

    Attributes:
        what: what went wrong, and where.
        advice: what to do; a sentence of its own.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}. {advice}" if advice else what)
        self.what, self.advice = what, advice


class ChildError(MynaError):
    """A process that was started for a part of the work failed in it: a defect of ours, named by its last line."""

    exit_code = 1


class Stopped(MynaError):  # noqa: N818 (not a fault)
    """A signal ended the work; what was done is saved, so the same call goes on from there."""

    exit_code = 75


def unknown_name(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that is not there, with the nearest that is.

    >>> str(unknown_name("recipe", "gpt2-142m", ["pydoc", "gpt2-124m"]))
    "there is no recipe 'gpt2-142m'; did you mean gpt2-124m? There are: pydoc, gpt2-124m"
    """
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]}? There" if near else "there"
    return UsageError(f"there is no {kind} {name!r}; {hint} are: {', '.join(known)}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something; its kind where none does.

    >>> first_line(ValueError("\\n  no such file  \\ndetails")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def to_record(error: Exception) -> dict[str, Any]:
    """An error as a JSON object, for another process: ours by its kind, the system's by its number, else a defect."""
    if isinstance(error, MynaError):
        # a room's own kind travels as the kind above it, which every process knows
        kind = next(kind for kind in type(error).__mro__ if globals().get(kind.__name__) is kind)
        return {"kind": kind.__name__, "message": str(error)}
    if isinstance(error, OSError):
        return {"kind": "OSError", "errno": error.errno, "message": error.strerror, "file": error.filename}
    told = "".join(traceback.format_exception(error))
    return {"kind": "defect", "message": f"{type(error).__name__}: {first_line(error)}", "traceback": told}


def from_record(record: Mapping[str, Any], where: str) -> Exception:
    """The error that `to_record` described, to be raised here.

    Args:
        where: names the other process, for a defect of ours.

    >>> from_record(to_record(DataError("no text in a.jsonl")), "a worker")
    DataError('no text in a.jsonl')
    >>> class BadLineError(DataError): pass
    >>> from_record(to_record(BadLineError("line 3 is bad")), "a worker")
    DataError('line 3 is bad')
    >>> from_record({"kind": "defect", "message": "KeyError: x"}, "a worker")
    ChildError('a worker: KeyError: x')
    """
    if record["kind"] == "OSError":
        return OSError(record["errno"], record["message"], record["file"])
    kind = globals().get(record["kind"])
    if isinstance(kind, type) and issubclass(kind, MynaError):
        return kind(record["message"])
    return ChildError(f"{where}: {record['message']}")
