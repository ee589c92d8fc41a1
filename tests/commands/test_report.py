import signal
import subprocess
import sys
from pathlib import Path

import pytest

from myna.cli import main
from myna.errors import OutputError
from myna.files import write_atomic
from myna.run import Run


def make_run(path: Path) -> Path:
    path.mkdir()
    run = Run(path)
    run.write_recipe({"name": path.name, "corpus": ["pydoc"], "tokenizer": "bytes"})
    for step in range(1, 6):
        run.append_metrics({"step": step, "tokens": 100 * step, "train_loss": 5.0 - step / 10})
    return path


def test_a_runs_picture_lies_in_its_folder(tmp_path, capsys):
    path = make_run(tmp_path / "one")
    assert main(["report", str(path)]) == 0
    assert (path / "report.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{path}: after 500 tokens  ·  train loss 4.5500 (smoothed)"
    assert shown[1].startswith("  No reference applies. Because: Its recipe.json does not record")
    assert any(line.startswith("  Still falling. The training loss fell by 0.3000 nats") for line in shown)
    assert shown[-2:] == [str(path / "report.png"), str(path / "report.html")]
    assert "<title>one</title>" in (path / "report.html").read_text("utf-8")


def test_several_runs_share_a_picture_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "one")
    make_run(tmp_path / "two")
    assert main(["report", "one", "two"]) == 0
    assert (tmp_path / "report.png").exists()
    assert (tmp_path / "report.html").exists()
    assert main(["report", "one", "two", "--out", "other/both.png"]) == 0
    assert (tmp_path / "other" / "both.png").exists()
    assert (tmp_path / "other" / "both.html").exists()
    assert not (tmp_path / "one" / "report.png").exists()


def test_out_may_name_the_page(tmp_path, capsys):
    path = make_run(tmp_path / "one")
    assert main(["report", str(path), "--out", str(tmp_path / "page.HTML")]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"one", "page.png", "page.html"}


def test_watching_a_run_that_nobody_trains_draws_it_once(tmp_path, capsys):
    path = make_run(tmp_path / "one")
    with Run(path).locked():
        pass
    assert main(["report", str(path), "--watch"]) == 0
    assert capsys.readouterr().out.count("after 500 tokens") == 1
    assert "data-reload=" not in (path / "report.html").read_text("utf-8")


def test_ctrl_c_ends_watching(tmp_path, child_environment):
    path = make_run(tmp_path / "one")
    with Run(path).locked():
        process = subprocess.Popen(
            [sys.executable, "-m", "myna", "report", str(path), "--watch"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment,
        )  # fmt: skip
        assert process.stdout.readline().startswith("one: step 5, after 500 tokens")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert 'data-reload="5"' in (path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "no run named"),
        (["absent"], "absent is not a run"),
        (["one", "--out", "picture.jpg"], "ends in .png (the picture) or .html (the page)"),
        (["one", "--out", "page"], "ends in .png (the picture) or .html (the page)"),
        (["one", "--out", "one/recipe.json/x.png"], "cannot write one/recipe.json/x.html"),
    ],
)
def test_a_wrong_call_is_named_in_a_line(tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "one")
    assert main(["report", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_what_cannot_be_read_or_written_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("x")
    (tmp_path / "c" / "metrics.jsonl").mkdir(parents=True)
    (tmp_path / "c" / "recipe.json").write_text("{}")
    for args, words in (
        ([tmp_path / "c"], "metrics.jsonl is no file"),
        ([tmp_path / "short.txt"], "short.txt is a file, not a run"),
        ([""], "is empty; give a name"),
        ([tmp_path / "c", "--out", ""], "--out is empty"),
        ([tmp_path / "c", "--out="], "--out is empty"),
    ):
        assert main(["report", *map(str, args)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_a_place_under_a_file_is_no_place(tmp_path):
    with pytest.raises(OutputError, match="/dev/null is not a folder"):
        write_atomic(Path("/dev/null/x.png"), b"")
