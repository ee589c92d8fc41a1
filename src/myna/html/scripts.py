"""JavaScript modules as one script, for a page in one file: such a page has no place that it could import from.

Only the forms that our modules and uPlot's use are known. Another one is an error here, not in a reader's browser.

    import { a, b } from "./file.js";   import name from "./file.js";
    export function f …   export const x …   export class C …   export { name as default };
"""

import re
from functools import lru_cache
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
IMPORT = re.compile(r'^import (?:\{ ([\w, ]+) \}|(\w+)) from "\./([\w./]+)";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)
DEFAULT = re.compile(r"^export \{ (\w+) as default \};$", re.MULTILINE)
UNKNOWN = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


@lru_cache
def asset(name: str) -> str:
    """The text of a file that pages are made of."""
    return (ASSETS / name).read_text("utf-8")


@lru_cache
def joined_modules(entry: str) -> str:
    """A module with all that it imports, as one script that needs no other file. Each module keeps its own scope.

    Raises:
        ValueError: a module imports or exports in a form that is not known here.

    >>> script = joined_modules("page.js")
    >>> "import " in script.split("uPlot")[0], script.count("const modules = {};")
    (False, 1)
    """
    order: list[str] = []
    _follow(entry, order)
    return "const modules = {};\n" + "".join(_scoped(name) for name in order)


def _follow(name: str, order: list[str]) -> None:
    """Puts what a module imports before it."""
    for found in IMPORT.finditer(asset(name)):
        if found[3] not in order:
            _follow(found[3], order)
    order.append(name)


def _scoped(name: str) -> str:
    text = asset(name)
    # Of a module with a default nothing else is taken: uPlot's has an export in a comment.
    exported = [f"default: {one}" for one in DEFAULT.findall(text)] or EXPORT.findall(text)
    text = IMPORT.sub(_import, text)
    text = DEFAULT.sub("", EXPORT.sub("", text))
    if unknown := UNKNOWN.search(text):
        raise ValueError(f"{name} has {unknown[0]!r}, a form that {__name__} does not know")
    # In strict mode, as modules are.
    return (
        f'modules["{name}"] = (() => {{\n"use strict";\n{text}\nreturn {{ {", ".join(exported)} }};\n}})();\n'
    )


def _import(found: re.Match[str]) -> str:
    names = f"{{ {found[1]} }}" if found[1] else f"{{ default: {found[2]} }}"
    return f'const {names} = modules["{found[3]}"];'
