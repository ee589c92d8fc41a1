"""The help of a command and its flags: the docstrings of its dataclass and fields, each paragraph on one line.

tyro reads these docstrings, too, but it keeps line breaks of the source, so its help would break in mid-sentence.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import typing
from typing import Annotated, Any

import tyro


def described(call: type) -> str:
    """The docstring of a call, for the top of its help."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(call) or "").split("\n\n"))


def give_help(call: type, default: Any = None) -> None:
    """Gives tyro the help of a call's flags: of its class, and of the options that its default holds."""
    _give_help(call)
    for field in dataclasses.fields(default) if default is not None else ():
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            give_help(type(value), value)


@functools.cache
def _give_help(kind: type) -> None:
    for owner in kind.__mro__:
        if not dataclasses.is_dataclass(owner):
            continue
        texts = _paragraphs(owner)
        for name, annotation in inspect.get_annotations(owner).items():
            if name in texts and not _has_help(annotation):
                owner.__annotations__[name] = Annotated[annotation, tyro.conf.arg(help=texts[name])]
            for inner in _dataclasses_in(annotation):
                _give_help(inner)


def _paragraphs(kind: type) -> dict[str, str]:
    """The docstrings below a class's own fields, each on one line."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except OSError:  # installed without its source
        return {}
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    found = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                found[name] = " ".join(docstring.split())
    return found


def _has_help(annotation: Any) -> bool:
    return any(getattr(extra, "help", None) is not None for extra in getattr(annotation, "__metadata__", ()))


def _dataclasses_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    return [kind for part in typing.get_args(annotation) for kind in _dataclasses_in(part)]
