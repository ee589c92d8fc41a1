"""What the README and the docs show is what the code does: commands parse, blocks run, and print what is shown.

A ```python block runs. A ```text block right below it is what it prints. A ```console block holds commands, each after
`$ `, and below each what it prints, stdout and stderr together. `...` stands for any text. All blocks of a page run in
one folder, in their order. A comment on the line above a block changes this:

    <!-- varies -->           numbers in the output may differ
    <!-- slow -->             the block runs in the slow tests alone
    <!-- not run: REASON -->  its commands are only parsed; `pytest -rs` lists the reasons
"""

import contextlib
import difflib
import doctest
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

from myna import cli
from myna.commands import prepare
from myna.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
WITH_ACTIONS = ("tokenizer", "data")
AT_THE_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted([*AT_THE_ROOT, *(ROOT / "docs").rglob("*.md")])


def commands():
    """Every indented or quoted `myna ...`, with the torchrun before it taken away."""
    for page in PAGES:
        for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
            for found in re.findall(
                r"^(?: {4}|\$ )(?:torchrun .*?-m )?(myna [a-z].*)$|`(?:torchrun .*?-m )?(myna [a-z][^`]*)`",
                line,
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
    if name in WITH_ACTIONS and len(args) == 1:
        # The same, with its action, which exists if it has a help.
        with pytest.raises(SystemExit) as ended:
            cli.main([name, *args, "--help"])
        assert not ended.value.code
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


@dataclass(frozen=True)
class Example:
    """A block of a page: where it begins, what it runs, and what it prints (None: the page doesn't show it)."""

    page: Path
    line: int
    code: str
    shown: str | None
    command: bool
    note: str

    @property
    def place(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}"


FENCED = re.compile(
    r"^(?:<!-- (?P<note>(?:varies|slow|not run)[^\n]*) -->\n)?```(?P<kind>python|console)\n(?P<body>.*?)^```$"
    r"(?:\n+```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


def examples(page):
    """The blocks of a page in their order; each command of a console block for itself."""
    text = page.read_text("utf-8")
    for found in FENCED.finditer(text):
        note = found["note"] or ""
        first = text.count("\n", 0, found.start("body")) + 1
        if found["kind"] == "python":
            yield Example(page, first, found["body"], found["output"], False, note)
            continue
        lines = found["body"].splitlines()
        starts = [n for n, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            shown = "\n".join(lines[start + 1 : end])
            yield Example(page, first + start, lines[start][2:], shown, True, note)


def run(example):
    """What an example prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if not example.command:
            source = "\n" * (example.line - 1) + example.code  # so that a traceback names the page's line
            exec(compile(source, str(example.page), "exec"), {"__name__": "__main__"})
            return printed.getvalue()
        program, *args = shlex.split(example.code, comments=True)
        if program == "python":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", args)
                runpy.run_path(str(ROOT / args[0]), run_name="__main__")
        elif program == "torchrun":
            return torchrun(args)
        else:
            assert program == "myna", f"{example.place}: {program} can't be run here"
            code = cli.main(args)
            if code and f"myna {args[0]}: " not in (example.shown or ""):
                pytest.fail(f"{example.place}: exit status {code}\n{printed.getvalue()}", pytrace=False)
    return printed.getvalue()


def torchrun(args):
    """What several processes print."""
    args = [str(ROOT / word) if word.startswith("docs/") else word for word in args]
    command = [sys.executable, "-m", "torch.distributed.run", *args]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if ran.returncode:
        pytest.fail(f"torchrun {shlex.join(args)}: exit status {ran.returncode}\n{ran.stdout}", pytrace=False)
    return ran.stdout


def hold(example, printed):
    """Fails, with page, line and difference, if what was printed is not what the page shows."""
    if example.shown is None:
        return

    def tidy(text):
        lines = [line.rstrip() for line in text.splitlines()]
        if "varies" in example.note:
            lines = [" ".join(re.sub(r"\d[\d,.]*", "0", line).split()) for line in lines]
        return "\n".join(lines).strip("\n") + "\n"

    shown, real = tidy(example.shown), tidy(printed)
    if not doctest.OutputChecker().check_output(shown, real, doctest.ELLIPSIS):
        compared = difflib.unified_diff(
            shown.splitlines(), real.splitlines(), "the page shows", "it prints", lineterm=""
        )
        name = example.code if example.command else "this block"
        pytest.fail("\n".join([f"{example.place}: {name}", *compared]), pytrace=False)


def pages_with(wanted):
    for page in PAGES:
        if any(wanted(example.note) for example in examples(page)):
            yield pytest.param(page, id=str(page.relative_to(ROOT)))


def run_page(page, tmp_path, monkeypatch, slow):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    if "data/pydoc" in "".join(example.code for example in examples(page)):
        # The page prepared it before. Our own pages stand in for the corpus, which takes 20 s.
        prepare.main([str(ROOT / "docs"), "--out", "data/pydoc", "--workers", "1"])
    for example in examples(page):
        if not example.note.startswith("not run") and (slow or "slow" not in example.note):
            hold(example, run(example))


@pytest.mark.parametrize("page", list(pages_with(lambda note: not re.match("slow|not run", note))))
def test_the_blocks_of_a_page_print_what_it_shows(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", list(pages_with(lambda note: note.startswith("slow"))))
def test_the_slow_blocks_of_a_page_print_what_it_shows(page, tmp_path, monkeypatch):
    run_page(page, tmp_path, monkeypatch, slow=True)


def not_run():
    for page in PAGES:
        for example in examples(page):
            if example.note.startswith("not run"):
                yield pytest.param(example, id=f"{example.place}: {example.code.strip()}")


@pytest.mark.parametrize("example", list(not_run()))
def test_a_block_that_is_not_run_says_why(example):
    reason = example.note.removeprefix("not run").removeprefix(":").strip()
    assert reason, f"{example.place}: write the reason, as in <!-- not run: needs two GPUs -->"
    pytest.skip(f"{example.place}: {example.code.strip()}: {reason}")


def test_a_changed_output_names_page_and_line_and_shows_the_difference(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('# A page\n\n```console\n$ myna tokenizer show hi\n5303\t"ho"\n...\n```\n')
    (example,) = examples(page)
    with pytest.raises(pytest.fail.Exception) as failure:
        hold(example, run(example))
    said = str(failure.value)
    assert f"{page}:4: myna tokenizer show hi" in said
    assert '-5303\t"ho"' in said
    assert '+5303\t"hi"' in said


def test_numbers_may_vary_where_the_page_says_so(tmp_path):
    page = tmp_path / "page.md"
    for note, fine in (("<!-- varies -->\n", True), ("", False)):
        page.write_text(f"{note}```python\nprint('took', 12.5, 's')\n```\n\n```text\ntook 3 s\n```\n")
        (example,) = examples(page)
        with contextlib.nullcontext() if fine else pytest.raises(pytest.fail.Exception):
            hold(example, run(example))


def test_every_recipe_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    for name in RECIPES:
        assert name in text


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
