import re
from dataclasses import dataclass, field
from typing import Annotated

import pytest
import tyro

from myna.commands import parse


@dataclass(frozen=True)
class Inner:
    width: int = 3
    """Of the table,
    and of (nearly)
    `everything` else."""


@dataclass(frozen=True)
class Call:
    """A call."""

    place: Annotated[str, tyro.conf.arg(metavar="PLACE")] = "here"
    """Where it
    stands."""
    other: Annotated[int, tyro.conf.arg(help="Given by hand.")] = 0
    """Not this."""
    bare: int = 1
    inner: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)


def shown(capsys, monkeypatch, **options):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse(Call, ["--help"], command="try", **options)
    return re.sub(" +", " ", capsys.readouterr().out)


def test_a_docstring_of_several_lines_is_one_paragraph(capsys, monkeypatch):
    text = shown(capsys, monkeypatch)
    assert "--place PLACE Where it stands. (default: here)" in text
    assert "--width INT Of the table, and of (nearly) `everything` else. (default: 3)" in text


def test_a_help_given_by_hand_stays(capsys, monkeypatch):
    text = shown(capsys, monkeypatch)
    assert "Given by hand." in text
    assert "Not this" not in text


def test_the_options_that_a_default_holds_have_it_too(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    from myna.commands.train import main

    with pytest.raises(SystemExit):
        main(["pydoc", "--help"])
    text = re.sub(" +", " ", capsys.readouterr().out)
    assert "one step ahead (Nesterov) [6]. (default: 0.9" in text
    assert "Decay of the running mean of the matrices' gradient; the update looks one" in text
