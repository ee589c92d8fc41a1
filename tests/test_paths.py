"""The door for paths, and the line for an error of the system that comes out of a command."""

import errno
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from myna import cli
from myna.errors import DataError, UsageError
from myna.files import cache_folder
from myna.paths import cannot_use, given_path, quoted


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that nobody may enter, seen by a user whom permissions bind: root sees none of them."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        folder = Path(made, "closed")
        (folder / "below").mkdir(parents=True)
        folder.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.mark.parametrize("given", ["runs/a", "gpt2", "hf:a/b", "s3://bucket/folder", "text.txt/below", "."])
def test_what_is_there_and_what_is_a_name_pass(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").touch()
    assert given_path(given) == Path(given)


def test_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_path("~/runs") == tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    Path("~draft").touch()
    assert given_path("~draft") == Path("~draft")  # a name that begins so


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("~nosuchuser/x", "~nosuchuser leads to no home folder"),
        ("a\0b", "the path 'a\\x00b' holds a NUL"),
        ("x" * 5000, "File name too long; give a shorter name"),
        ("circle/x", "symbolic links; its links lead in a circle"),
        ("gone/x", "gone is a link to nowhere, which is not there; mount or make"),
    ],
)
def test_what_can_be_no_path_is_refused_in_a_line(given, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    Path("gone").symlink_to("nowhere")
    with pytest.raises(DataError) as refused:
        given_path(given, DataError)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("inner", ["", "below", "below/absent"])
def test_a_folder_that_may_not_be_entered_is_refused(closed, inner):
    with pytest.raises(UsageError, match=r"closed.*: Permission denied; see who may"):
        given_path(closed / inner)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            "cannot use a/b: Permission denied; see who",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", b"a"),
            "cannot use a: Too many open files; raise the limit",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "cannot use a file or connection: Input/output error; give",
        ),
        (OSError("a library's own"), "cannot use a file or connection: a library's own; give another"),
    ],
)
def test_an_error_of_the_system_that_escapes_is_a_line(error, says, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "run", fail)
    assert cli.main(["data", "show", "x"]) == 2
    assert capsys.readouterr().err.startswith(f"myna data: {says}")


def test_any_other_error_stays_a_defect(monkeypatch):
    def fail(*_):
        raise KeyError("x")

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(KeyError):
        cli.main(["data", "show", "x"])


def test_the_cache_is_never_in_the_folder_we_are_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative", "~nosuchuser/x"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache" / "myna"
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder().is_absolute()


def test_cannot_use_names_what_is_used_where_the_error_names_nothing():
    assert cannot_use(OSError(errno.EIO, "Input/output error"), "a/b").startswith("cannot use a/b: Input")


@pytest.mark.parametrize("path", ["runs/a", "runs/r 1", "it's $HOME", "naïve;x", "~a", "s3://bucket/a b"])
def test_a_path_in_a_command_is_one_word_of_the_shell(path):
    assert shlex.split(f"myna sample {quoted(path)}") == ["myna", "sample", path]


def test_a_path_in_a_command_is_no_flag_and_ends_no_line():
    assert quoted(Path("-x")) == "./-x"
    assert "\n" not in quoted("a\nb")
