"""The files that people expect at the root of a project name things that are there."""

import fnmatch
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def rows() -> list[list[str]]:
    """The cells of the table of what can be added."""
    section = read("CONTRIBUTING.md").partition("## To add something")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| a")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in rows()])
def test_what_can_be_added_has_its_tables_where_contributing_says(row: list[str]) -> None:
    _, wrote, table, told = row
    for cell in (table, told):
        linked = [ROOT / path for path in re.findall(r"\]\(([^)#]+)", cell)]
        for name in re.findall(r"`([A-Z]{4,}|routes|Recipe|Eval)`", cell):
            defined = rf"^ *(?:class )?{name}\b.*[=:]"
            assert any(re.search(defined, path.read_text("utf-8"), re.MULTILINE) for path in linked), name
    for folder in re.findall(r"`(src/[^`]+)/`", wrote):
        assert (ROOT / folder).is_dir(), folder


def test_contributing_has_every_kind_of_idea_that_has_a_table() -> None:
    kinds = " ".join(row[0] for row in rows())
    for kind in ("corpus", "network", "optimizer", "evaluation", "task", "recipe", "command", "endpoint"):
        assert kind in kinds


def test_the_citation_has_what_its_format_requires_and_agrees_with_the_package() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    for field in ("message", "title", "authors"):
        assert citation[field]
    for author in citation["authors"]:
        assert author.keys() & {"name", "family-names", "given-names", "alias"}
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_has_the_version() -> None:
    assert PROJECT["version"] in read("CHANGELOG.md")


def test_the_workflow_calls_the_check_on_two_pythons() -> None:
    workflow = yaml.safe_load(read(".github/workflows/check.yml"))
    assert {"push", "pull_request"} <= workflow[True].keys()  # `on` is a truth value in YAML 1.1
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["scripts/check"]
    assert os.access(ROOT / "scripts" / "check", os.X_OK)
    (python,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert python["cache"] == "pip"
    for path in python["cache-dependency-path"].split():
        assert (ROOT / path).is_file(), path


def copied() -> list[str]:
    found = re.findall(r"^COPY (.+) \S+$", read("Dockerfile"), re.MULTILINE)
    return [source for line in found for source in line.split()]


def test_the_container_gets_what_it_copies() -> None:
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in sent, f"{source} is left out by .dockerignore"


def test_the_container_gets_what_the_package_is_built_from() -> None:
    needed = ["pyproject.toml", "constraints.txt", PROJECT["readme"], *PROJECT["license-files"], "src/myna"]
    for path in needed:
        assert any(path == source or fnmatch.fnmatch(path, f"{source}/*") for source in copied()), path


def test_the_container_ends_as_a_user_without_rights() -> None:
    users = re.findall(r"^USER (\S+)$", read("Dockerfile"), re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")


def test_the_check_builds_the_site_with_what_it_installs() -> None:
    assert "mkdocs build" in read("scripts/check")
    assert any(re.match(r"myna\[.*\bdocs\b", one) for one in PROJECT["optional-dependencies"]["dev"])


def test_every_extra_that_is_named_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "launch").glob("*.py")]
    pages += (ROOT / "src").rglob("*.py")
    named = {
        extra.strip()
        for page in pages
        for found in re.findall(r"pip install [^`\n]*?(?:myna|\.)\[([a-z0-9, ]+)\]", page.read_text("utf-8"))
        for extra in found.split(",")
    }
    assert {"hub", "ray"} <= named <= PROJECT["optional-dependencies"].keys()
