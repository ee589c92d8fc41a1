"""The corpus `pydoc-chat`: questions about the functions of Python's library, answered from their docstrings.

The rule: each function and method with a docstring, by file and line, whose name does not begin with an underscore, is
asked about once, by one of `QUESTIONS` (which one, its name's hash says). The answer is the call, `name(arguments)`,
and the docstring's first paragraph. Where there are more paragraphs, one of `MORE` asks for them, and the second answer
is the rest. A conversation that came before is left out. Nothing is imported: all is read by parsing the sources. On
CPython 3.11 that is about 5,070 conversations, two fifths of them with two questions.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator

from myna.data.conversations import conversation_text
from myna.data.sources.pydoc import library, parsed_sources
from myna.errors import DataError

QUESTIONS = (
    "What does {} do?",
    "How do I call {}?",
    "Explain {}.",
    "What is {} for?",
    "Can you tell me about {}?",
)
MORE = ("Tell me more.", "What else should I know?", "Is there more to it?")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def pydoc_conversations() -> tuple[str, ...]:
    """The documents, each one conversation. Read once (two seconds), then remembered.

    Raises:
        DataError: this Python came without its sources.
    """
    found = tuple(dict.fromkeys(_conversations()))
    if not found:
        raise DataError(
            f"{library()} holds no Python sources to read documentation from; name another corpus"
        )
    return found


def _conversations() -> Iterator[str]:
    for module, tree in parsed_sources():
        for name, function in sorted(_functions(tree, module), key=lambda pair: pair[1].lineno):
            if not function.name.startswith("_") and (text := ast.get_docstring(function)):
                yield conversation_text(_turns(name, function, text))


def _functions(tree: ast.Module, module: str) -> Iterator[tuple[str, Function]]:
    """A module's functions and its classes' methods, each with the name by which people ask for it."""
    for node in tree.body:
        if isinstance(node, Function):
            yield f"{module}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one) for one in node.body if isinstance(one, Function))


def _turns(name: str, function: Function, text: str) -> list[dict[str, str]]:
    first, _, rest = (paragraph.strip() for paragraph in text.partition("\n\n"))
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    turns = [
        ("user", QUESTIONS[number % len(QUESTIONS)].format(name)),
        ("assistant", f"{call(function)}\n\n{first}".strip()),
    ]
    if rest:
        turns += [("user", MORE[number % len(MORE)]), ("assistant", rest)]
    return [{"role": role, "content": content} for role, content in turns]


def call(function: Function) -> str:
    """How a function is called, without annotations; a method without its own object.

    >>> tree = ast.parse("def f(self, a: int, *, b='x') -> str: ...")
    >>> call(tree.body[0])
    "f(a, *, b='x')"
    """
    given = function.args
    for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if one is not None:
            one.annotation = None
    for names in (given.posonlyargs, given.args):
        if names and names[0].arg in ("self", "cls") and len(names) > len(given.defaults):
            del names[0]
            break
    return f"{function.name}({ast.unparse(given)})"
