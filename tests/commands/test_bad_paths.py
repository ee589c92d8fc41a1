"""Each place where a command takes a path, given what can be none: one line, exit code 2, nothing made."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main

CALLS = [
    "prepare BAD --out new",
    "prepare text.txt --out BAD",
    "prepare text.txt --out new --tokenizer BAD",
    "prepare --from-shards BAD --out new",
    "train shakespeare-char --data BAD --out new",
    "train shakespeare-char --data data --out BAD",
    "train shakespeare-char --data data --out new --hellaswag BAD",
    "train shakespeare-char --data data --out new --tokenizer BAD",
    "sample BAD --prompt x",
    "sample model --prompt x --tokenizer BAD",
    "sample model --file BAD",
    "compare model BAD --prompt x",
    "compare model model --file BAD",
    "compare BAD BAD --checkpoints --prompt x",
    "compare model model --prompt x --max-tokens 1 --html BAD/x.html",
    "serve BAD --port 0",
    "serve model --port 0 --runs BAD",
    "serve model --port 0 --api-key-file BAD",
    "eval BAD --task val",
    "eval model --task val --data BAD",
    "eval model --task hellaswag --data BAD",
    "import BAD --out new",
    "import text.txt --out BAD",
    "export BAD --to hugging-face --out new",
    "export model --to hugging-face --out BAD",
    "export model --to llmc --out BAD",
    "bench --layers 0 --out BAD",
    "inspect BAD --out new",
    "inspect model --show nearest --out BAD",
    "inspect model --tokenizer BAD --out new",
    "report BAD",
    "report data BAD --out new.png",
    "report model --out BAD/new.png",
    "tokenizer train BAD --vocab-size 300 --out new",
    "tokenizer train text.txt --vocab-size 300 --out BAD",
    "tokenizer show x --tokenizer BAD",
    "tokenizer compare x --tokenizer gpt2 --tokenizer BAD",
    "data show BAD",
    "data show data --tokenizer BAD",
]
BAD = {
    "~nosuchuser/x": "~nosuchuser leads to no home folder",
    "caf\udce9": "is not UTF-8",
    "x" * 5000: "File name too long",
    "a\0b": "holds a NUL",
    "closed/below": "Permission denied",
    "closed": "ermission",
    "pipe": "pipe",
}


@pytest.fixture(scope="module")
def place():
    """A folder with a model, a text, and a folder that may not be entered; everybody may write there."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o777)
        (folder / "closed" / "below").mkdir(parents=True)
        (folder / "closed").chmod(0)
        (folder / "text.txt").write_text("some text\n" * 50)
        os.mkfifo(folder / "pipe")
        network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=257))
        network.save_pretrained(folder / "model", Tokenizer.bytes())
        yield folder
        (folder / "closed").chmod(0o700)


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_path_is_one_line_and_nothing_is_made(call, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    main(call.replace("BAD", "absent/x").split())  # what is loaded on demand, root must load: see below
    shutil.rmtree("absent", ignore_errors=True)
    capsys.readouterr()
    before = sorted(place.iterdir())
    said = {}
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # whom permissions bind
    try:
        for bad in BAD:
            if bad == "pipe" and "BAD/" in call:
                continue
            assert main([word.replace("BAD", bad) for word in call.split()]) == 2, bad
            said[bad] = capsys.readouterr().err
    finally:
        if root:
            os.seteuid(0)
    for bad, line in said.items():
        assert BAD[bad] in line, (bad, line)
        assert line.count("\n") == 1, line
        assert len(line) < 600, line
    assert sorted(place.iterdir()) == before


def test_compare_takes_what_can_be_no_path_for_a_text(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for text in ("x" * 5000, "a\0b", "~nosuchuser/x"):
        assert main(["tokenizer", "compare", text, "--tokenizer", "gpt2", "--tokenizer", "bytes"]) == 0
        assert f"{len(text)} bytes" in capsys.readouterr().out.replace(",", "")


def test_a_home_is_found_behind_an_equals_sign(place, monkeypatch, capsys):
    """The shell leaves the ~ of --out=~/x as it is."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    assert main(["export", "~/model", "--to=hugging-face", "--out=~/copy", "--tokenizer=~/model"]) == 0
    assert (place / "copy" / "config.json").is_file()
    assert main(["eval", "~/model", "--task", "hellaswag", "--data=~/text.txt"]) == 2
    assert f"{place}/text.txt, line 1" in capsys.readouterr().err
    for file in (place / "copy").iterdir():
        file.unlink()
    (place / "copy").rmdir()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["sample", "absent", "--prompt", "-x"], "if -x is the value of --prompt, write --prompt=-x"),
        (
            ["sample", "absent", "--prompt", "--count"],
            "if --count is the value of --prompt, write --prompt=--count",
        ),
        (
            ["sample", "absent", "--prompt", "a", "--stop", "-x"],
            "if -x is the value of --stop, write --stop=-x",
        ),
        (
            ["train", "--sample-prompt", "-x"],
            "if -x is the value of --sample-prompt, write --sample-prompt=-x",
        ),
        (["prepare", "a", "--out", "-x"], "if -x is the value of --out, write --out=-x"),
        (["tokenizer", "show", "-x"], "if -x is no flag, write it last, after --"),
    ],
)
def test_a_value_that_begins_with_a_dash_is_explained(call, says, capsys):
    with pytest.raises(SystemExit) as ending:
        main(call)
    assert ending.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(says)


def test_and_the_explained_ways_work(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["sample", "model", "--prompt=-x", "--max-tokens", "1", "--stop=-y"]) == 0
    assert capsys.readouterr().out.startswith("-x")
    assert main(["tokenizer", "show", "--tokenizer", "bytes", "--", "-x"]) == 0
    assert capsys.readouterr().out.splitlines() == ['45\t"-"', '120\t"x"']
    assert main(["sample", "model", "--prompt", "a", "--temperature", "-1"]) == 2
    assert "temperature is -1.0; give 0 (greedy) or more" in capsys.readouterr().err
    assert main(["data", "show", "--", "-x"]) == 2
    assert "no dataset at -x" in capsys.readouterr().err


def test_a_closed_standard_input_is_empty(monkeypatch):
    from myna import cli

    monkeypatch.setattr(sys, "argv", ["myna", "tokenizer", "show", "-"])
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit) as ending:
        cli.entry()
    opened = [sys.stdin, sys.stdout, sys.stderr]
    assert ending.value.code == 0
    assert all(isinstance(stream, io.TextIOWrapper) for stream in opened)
    for stream in opened:
        stream.close()


@pytest.mark.parametrize("cache", ["text.txt", "/proc/nowhere", "closed"])
def test_a_cache_that_cannot_be_written_costs_no_work(cache, place, small_dataset, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / cache))
    assert main(["data", "show", str(small_dataset), "--verify", "--windows", "0"]) == 0
    capsys.readouterr()
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: place / cache)
    assert main(["data", "show", str(small_dataset), "--windows", "0"]) == 0


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_pipe_in_a_folder_is_not_waited_for(place, tmp_path, capsys, file):
    shutil.copytree(place / "model", tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    os.mkfifo(tmp_path / "model" / file)
    assert main(["sample", str(tmp_path / "model"), "--prompt", "x"]) == 2
    assert f"{tmp_path / 'model' / file} is a device or a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["\ud800.npy", "a\0b.npy"])
def test_a_shard_whose_name_can_be_none_is_a_line(small_dataset, tmp_path, capsys, name):
    data = shutil.copytree(small_dataset, tmp_path / "data")
    info = json.loads((data / "dataset.json").read_text())
    info["train"]["shards"][0]["file"] = name
    (data / "dataset.json").write_text(json.dumps(info))
    assert main(["data", "show", str(data)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no name of a file; prepare the dataset again" in said


def test_a_source_that_is_no_text_is_shown_as_it_is(small_dataset, tmp_path, capsys):
    data = shutil.copytree(small_dataset, tmp_path / "data")
    info = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(info | {"source": [[[]]]}))
    assert main(["data", "show", str(data)]) == 0
    assert f"{data}: [[]]" in capsys.readouterr().out


def test_a_shard_that_cannot_be_read_is_not_to_be_prepared_again(small_dataset, tmp_path, capsys):
    data = shutil.copytree(small_dataset, tmp_path / "data")
    shard = next(data.glob("train_*.npy"))
    shard.unlink()
    shard.symlink_to(shard.name)
    assert main(["data", "show", str(data)]) == 2
    said = capsys.readouterr().err
    assert f"cannot use {shard}" in said
    assert "its links lead in a circle" in said


def test_an_index_that_names_what_can_be_no_file_is_a_line(place, tmp_path, capsys):
    model = shutil.copytree(place / "model", tmp_path / "model")
    (model / "model.safetensors").rename(model / "a.safetensors")
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"x": "\\ud800.safetensors"}}')
    assert main(["sample", str(model), "--prompt", "x"]) == 2
    assert "which is no safetensors file inside the folder" in capsys.readouterr().err


def test_train_does_not_take_an_empty_name_for_this_folder(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for flag in ("--out", "--data", "--tokenizer", "--hellaswag"):
        assert main(["train", *small_run, "--steps", "1", flag, ""]) == 2
        assert f"{flag} is empty" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "variables", "code"),
    [
        ("nosuch 2>/dev/full", {}, 2),
        ("tokenizer show hi --tokenizer /absent/x 2>/dev/full", {}, 2),
        ("report absent/x", {"MPLBACKEND": "garbage"}, 2),
        ("sample --help >/dev/null", {"COLUMNS": "1"}, 0),
    ],
)
def test_odd_surroundings_change_no_exit_code(call, variables, code, child_environment):
    command = f"{sys.executable} -m myna {call}"
    done = subprocess.run(
        command, shell=True, env=child_environment | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
