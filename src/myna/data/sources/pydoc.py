"""The corpus `pydoc`: the documentation that ships inside every Python. No network, and nothing is imported.

The rule: first the topics of `pydoc_data.topics`, by name; then the docstrings of the standard library's modules,
classes and functions, by file and line, cleaned of their indentation. Left out are tests, installed packages,
docstrings under 200 characters (mostly signatures), and any text that came before. All are read by parsing the
sources: importing a module runs it. On CPython 3.11 that is about 2,430 documents and 1.75 MB.
"""

import ast
import functools
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from myna.errors import DataError

LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
)
DOCSTRING_CHARACTERS = 200


@functools.cache
def pydoc_documents() -> tuple[str, ...]:
    """The documents, in the order of the rule above. Read once (two seconds), then remembered.

    Raises:
        DataError: this Python came without its sources.
    """
    found = tuple(dict.fromkeys((*_topics(), *_docstrings())))
    if not found:
        raise DataError(
            f"{library()} holds no Python sources to read documentation from; name another corpus"
        )
    return found


def library() -> Path:
    """Where the sources of Python's library lie."""
    return Path(sysconfig.get_paths()["stdlib"])


def parsed_sources() -> Iterator[tuple[str, ast.Module]]:
    """The modules of Python's library by path, each with its dotted name; without those that are `LEFT_OUT`."""
    paths = (path.relative_to(library()) for path in library().rglob("*.py"))
    for path in sorted(paths, key=lambda path: path.as_posix()):
        if LEFT_OUT.isdisjoint(path.parts) and (tree := _parse(library() / path)) is not None:
            name = path.with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
            yield name, tree


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in old modules
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _topics() -> Iterator[str]:
    tree = _parse(library() / "pydoc_data" / "topics.py")
    for statement in tree.body if tree else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics = ast.literal_eval(statement.value)
            yield from (topics[name].strip() + "\n" for name in sorted(topics))


def _docstrings() -> Iterator[str]:
    for _, tree in parsed_sources():
        owners = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for owner in sorted(owners, key=lambda node: getattr(node, "lineno", 0)):
            text = ast.get_docstring(owner)
            if text and len(text) >= DOCSTRING_CHARACTERS:
                yield text + "\n"
