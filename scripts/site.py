"""What MkDocs does with pages that were written to be read in a repository (mkdocs.yml names this file).

README.md, CONTRIBUTING.md and CHANGELOG.md become pages. A link that leads out of docs/, to a source file or a folder,
leads to a page that shows it. So every link works in both places, and the site's links never leave the site.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COPIES = {"src/myna/serve/page/icon.svg": "assets/icon.svg"}
LANGUAGES = {
    ".py": "python",
    ".sh": "bash",
    ".sbatch": "bash",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
}

FENCED = re.compile(r"^(```+).*?^\1$", re.DOTALL | re.MULTILINE)
ITEM = re.compile(r"(?:\d+\.|-) ")
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?=(?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> None:
    """Patterns in the list of pages stand for the pages that there are, in the order of their names."""
    config.nav = [_expanded(entry) for entry in config.nav or []]


def _expanded(entry: Any) -> Any:
    if not isinstance(entry, dict) or isinstance(next(iter(entry.values())), str):
        return entry
    ((title, below),) = entry.items()
    pages: list[str] = []
    for one in below:
        found = sorted((ROOT / "docs").glob(one)) if "*" in one else [ROOT / "docs" / one]
        pages += [path.relative_to(ROOT / "docs").as_posix() for path in found]
    return {title: pages}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside docs/: the pages, the files that are copied, and whatever a page links to."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text("utf-8")))
    for path, uri in COPIES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    wanted = [
        path
        for file in files.documentation_pages()
        for path in _linked(file.content_string, repository_path(file.src_uri))
    ]
    while wanted:
        path = wanted.pop()
        uri = site_uri(path)
        if uri in files.src_uris or not (ROOT / path).exists():  # MkDocs itself complains of a missing one
            continue
        if (ROOT / path).is_dir():
            below = [one for one in sorted((ROOT / path).iterdir()) if one.is_file()]
            wanted += [one.relative_to(ROOT).as_posix() for one in below]
            content = _folder_page(path, below)
        else:
            content = source_page(path, config.extra["repository"] or "")
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Leads links to the site's pages, and writes out what GitHub understands and Python's Markdown must be told."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    if page.is_homepage:  # the drawing of the route is wide
        page.meta["hide"] = ["toc"]
    here = repository_path(page.file.src_uri)
    markdown = _outside_fences(
        markdown, lambda text: LINK.sub(lambda found: _led(found["target"], here), text)
    )
    return _outside_fences(markdown.replace("<details>", "<details markdown>"), indented)


def indented(markdown: str) -> str:
    """What belongs to an item of a list begins 4 columns in, not below the item's first letter.

    >>> indented("1. One:\\n\\n   its table\\n- two\\n\\n  more")
    '1. One:\\n\\n    its table\\n- two\\n\\n    more'
    """
    lines, width, before = [], 0, ""
    for line in markdown.split("\n"):
        item = ITEM.match(line)
        if item and (width or not before):
            width = item.end()
        elif line and not line.startswith(" " * (width or 1)):
            width = 0
        elif line and width:
            line = " " * (4 - width) + line
        lines.append(line)
        before = line
    return "\n".join(lines)


def repository_path(uri: str) -> str:
    """Where a page of the site lies in the repository: index.md is README.md, start.md is docs/start.md."""
    return next((path for path, page in PAGES.items() if page == uri), f"docs/{uri}")


def site_uri(path: str) -> str:
    """The page of the site for a path of the repository, relative to the site's root."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def _led(target: str, here: str) -> str:
    path = os.path.normpath(os.path.join(os.path.dirname(here), target))
    return os.path.relpath(site_uri(path), os.path.dirname(site_uri(here)) or ".")


def _linked(markdown: str, here: str) -> list[str]:
    """Paths outside docs/ that a page of the repository links to."""
    targets: list[str] = []
    _outside_fences(
        markdown, lambda text: (targets.extend(m["target"] for m in LINK.finditer(text)), text)[1]
    )
    paths = [os.path.normpath(os.path.join(os.path.dirname(here), target)) for target in targets]
    return [path for path in paths if path not in PAGES and not path.startswith(("docs/", "../"))]


def _outside_fences(markdown: str, change: Any) -> str:
    parts, end = [], 0
    for fence in FENCED.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def source_page(path: str, repository: str) -> str:
    """The Markdown of a page that shows a file; `repository` is the address to link to, or ""."""
    text = (ROOT / path).read_text("utf-8")
    there = (
        f"[This file in the repository]({repository.rstrip('/')}/blob/HEAD/{path})\n\n" if repository else ""
    )
    fence = "`" * max(4, 1 + max(map(len, re.findall("`+", text)), default=0))
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f'{_head(path)}{there}{fence}{language} linenums="1"\n{text.rstrip()}\n{fence}\n'


def _folder_page(path: str, below: list[Path]) -> str:
    return _head(path) + "".join(f"- [{one.name}]({one.name}.md)\n" for one in below)


def _head(path: str) -> str:
    return f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n# `{path}`\n\n"
