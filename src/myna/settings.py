"""A setting: a field of a dataclass that says in one place its type, its unit, its check, and what a resume may change.

A recipe is made of settings, and so are a network's and an optimizer's own options. The type stands before the default,
the unit and the meaning in the text below it, which `--help` shows. The check and the resume rule are arguments:

    warmup_steps: int = setting(715, AT_LEAST_0, resume="override")
    \"""Steps over which the learning rate grows linearly.\"""
"""

import dataclasses
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from myna.errors import UsageError

T = TypeVar("T")

# Names that stand in flags; here, since `--help` must not wait for torch. See device.py.
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
WeightsName = Literal["auto", "fp32", "bf16", "fp16", "int8"]
CompileBy = Literal["auto", "block", "network"]
Order = Literal["shuffled", "sequential"]

# What a run that is taken up again may change: nothing (its checkpoints are made for it); what leads to other weights,
# with --override; what the weights don't depend on, at any time.
ResumeRule = Literal["never", "override", "free"]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, Python's or NumPy's.

    >>> is_whole(3), is_whole(3.0), is_whole("3"), is_whole(True)
    (True, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a whole number or a fraction, Python's or NumPy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Check:
    """What a value has to be, and what to tell a person whose value is not."""

    holds: Callable[[Any], bool]
    what_to_do: str


ABOVE_0 = Check(lambda value: value > 0, "give more than 0")
AT_LEAST_1 = Check(lambda value: value >= 1, "give 1 or more")
AT_LEAST_0 = Check(lambda value: value >= 0, "give 0 or more")
STEPS_OR_NEVER = Check(lambda value: value >= 0, "give a number of steps, or 0 for never")
BELOW_1 = Check(lambda value: 0 <= value < 1, "give a fraction from 0 up to, not including, 1")
UP_TO_1 = Check(lambda value: 0 <= value <= 1, "give 0 to 1")


def setting(default: T, check: Check | None = None, *, resume: ResumeRule = "override") -> T:
    """A dataclass field with that default, check and resume rule."""
    return dataclasses.field(default=default, metadata={"check": check, "resume": resume})


@dataclass(frozen=True)
class Options:
    """A network's or an optimizer's own settings. This one has none; the others add theirs."""


NO_OPTIONS = Options()


def read_options(kind: type[Options], stored: Mapping[str, Any]) -> Any:
    """Options that JSON has kept: its lists are tuples again.

    Raises:
        UsageError: it holds something else, or one is not an option of that kind.
    """
    known = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(stored, Mapping) or not known.issuperset(stored):
        raise UsageError(
            f"options are {reprlib.repr(stored)}; give an object of {', '.join(sorted(known)) or 'nothing'}"
        )
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    )


def flag(name: str, prefix: str = "") -> str:
    """
    >>> flag("batch_tokens"), flag("rotary_base", "network.")
    ('--batch-tokens', '--network.rotary-base')
    """
    return f"--{prefix}{name.replace('_', '-')}"


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def is_of_type(value: Any, kind: Any) -> bool:
    """Whether a setting's value is of the type that stands before its default.

    >>> is_of_type(3, float), is_of_type("3", int), is_of_type("auto", Literal["auto"] | int)
    (True, False, True)
    >>> is_of_type(("a", "b"), tuple[str, ...]), is_of_type(("a", 1), tuple[str, ...])
    (True, False)
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of_type(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(is_of_type(one, inner[0]) for one in value)
    if kind is int:
        return is_whole(value)
    if kind is float:
        return is_number(value)
    return not isinstance(kind, type) or isinstance(value, kind)


def type_in_words(kind: Any) -> str:
    """
    >>> type_in_words(Literal["auto"] | int), type_in_words(tuple[str, ...])
    ('auto or a whole number', 'a list, each text')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(type_in_words, inner))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple:
        return f"a list, each {type_in_words(inner[0])}"
    return _TYPES.get(kind) or f"{getattr(kind, '__name__', kind)}"


def check_settings(settings: Any, prefix: str = "") -> None:
    """Holds each field of a dataclass of settings to its type and its check; numbers must be finite.

    Args:
        prefix: comes before the names of flags, such as "network.".
    Raises:
        UsageError: the first that fails; names its flag.
    """
    types = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, check = getattr(settings, field.name), field.metadata.get("check")
        what_to_do, kind = None, types[field.name]
        if not is_of_type(value, kind):
            what_to_do = f"give {type_in_words(kind)}"
        elif isinstance(value, float) and not math.isfinite(value):
            what_to_do = "give a finite number"
        elif isinstance(check, Check) and not check.holds(value):
            what_to_do = check.what_to_do
        if what_to_do is not None:
            raise UsageError(f"{flag(field.name, prefix)} is {reprlib.repr(value)}; {what_to_do}")


def resume_rules(settings: Any) -> dict[str, ResumeRule]:
    """The resume rule of each field, by name."""
    return {field.name: field.metadata.get("resume", "override") for field in dataclasses.fields(settings)}
