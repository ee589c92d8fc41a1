"""What the README and the docs show is what the code does: each command parses, each Python block runs."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from myna import cli
from myna.commands import prepare
from myna.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands():
    """Every indented or quoted `myna ...`, with the torchrun before it taken away."""
    for page in PAGES:
        for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
            for found in re.findall(
                r"^ {4}(?:torchrun .*?-m )?(myna [a-z].*)$|`(?:torchrun .*?-m )?(myna [a-z][^`]*)`", line
            ):
                yield pytest.param(found[0] or found[1], id=f"{page.name}:{number}")


class Parsed(Exception):  # noqa: N818 (how a test ends a command once its arguments are read)
    pass


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_that_is_shown_parses(line, monkeypatch):
    _, name, *args = shlex.split(line, comments=True)
    if not args and name not in ("train",):  # the name of a command in prose
        assert name in cli.COMMANDS
        return
    if args[-1:] == ["--help"] or any(
        word.isupper() and len(word) > 1 for word in args[:1]
    ):  # a form, not a call
        assert name in cli.COMMANDS
        return

    original = tyro.cli

    def parse_and_end(*given, **options):
        original(*given, **options)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parse_and_end)
    # The model of --init would be looked for before the flags are read.
    monkeypatch.setattr("myna.commands.train_init.shape_of", lambda *given: {"block_size": 1024})
    with pytest.raises(Parsed):
        importlib.import_module(cli.module_of(name)).main(args)


def python_blocks():
    for page in PAGES:
        for number, block in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        ):
            yield pytest.param(block, id=f"{page.name}:{number}")


@pytest.mark.parametrize("block", list(python_blocks()))
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "data/pydoc" in block:  # which the page prepared before
        prepare.main(["pydoc", "--out", "data/pydoc", "--workers", "1"])
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})


def test_every_recipe_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    for name in RECIPES:
        assert name in text


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
