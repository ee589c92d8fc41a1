"""What is public, what the command line answers, and what neither may cost."""

import importlib
import importlib.metadata
import subprocess
import sys

import pytest

import myna
from myna import cli

PUBLIC = ["GPT", "GPTConfig", "Tokenizer", "generate"]


def test_the_public_names_are_these():
    assert sorted(myna.__all__) == PUBLIC
    assert dir(myna) == PUBLIC
    for name in PUBLIC:
        assert callable(getattr(myna, name))
    with pytest.raises(AttributeError, match="no attribute 'GPT5'"):
        myna.GPT5  # noqa: B018


def test_the_version_is_the_packages():
    assert myna.__version__ == importlib.metadata.version("myna")


# What a person, a test or the import system may do with the two things of that name: the room and the function.
USES = {
    "public": "from myna import generate, GPT",
    "attribute": "import myna; generate = myna.generate",
    "room": "import myna.generate",
    "from room": "from myna.generate import engine; assert engine.Engine",
    "from module": "from myna.generate.engine import Engine, generate as g; assert g.__name__ == 'generate'",
    "module": "import myna.generate.engine; assert myna.generate.engine.Engine",
    "module as": "import myna.generate.engine as engine; assert engine.Engine",
    "by name": "import importlib; assert importlib.import_module('myna.generate.text').stream_text",
    "patched": "import pytest; pytest.MonkeyPatch().setattr('myna.generate.text.Engine', None)",
}


@pytest.mark.parametrize("first", ["public", "room", "module as", "patched"])
def test_generate_is_the_function_whatever_was_imported_before(first):
    code = "\n".join([USES[first], *USES.values()]) + (
        "\nfrom myna import GPTConfig\nimport types\n"
        "assert type(generate) is types.FunctionType and generate is myna.generate\n"
        "model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=9))\n"
        "assert len(generate(model, [[1], [2, 3]], max_tokens=3)[1]) == 3\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, myna\nfrom myna.cli import main\nassert main(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'tyro', 'rich'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in cli.COMMANDS:
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_has_help(name, capsys):
    assert importlib.import_module(cli.module_of(name)).main.__doc__
    try:
        code = cli.main([name, "--help"])
    except SystemExit as ended:  # how the flag parser ends after printing
        code = ended.code
    assert code == 0
    assert f"myna {name}" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "myna: there is no command 'trian'; did you mean `myna train`?\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train", "gpt2-142m"], "did you mean gpt2-124m"),
        (
            ["train", "gpt2-124m", "--out", "OUT"],
            "myna prepare fineweb-edu --out data/gpt2-124m --tokenizer gpt2",
        ),
        (["train", "pydoc", "--sequence-length", "512", "--out", "OUT"], "over the model's 256 positions"),
        (["train", "pydoc", "--device", "cuda", "--out", "OUT"], "--device cuda"),
        (["train", "pydoc", "--steps", "2", "--tokenizer", "from-data", "--out", "OUT"], "needs --data"),
        (["train", "pydoc", "--steps", "2", "--tokenizer", "train:many", "--out", "OUT"], "train:N"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(args, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main([str(tmp_path / a) if a == "OUT" else a for a in args]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("myna train: ")
    assert complaint.count("\n") == 1
    assert says in complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["train", "--stepz", "3"], ["train", "pydoc", "--steps", "many"], ["eval"]])
def test_a_wrong_flag_or_type_is_a_panel_and_exit_2(args, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    if "--stepz" in args:
        assert "--steps" in said.err
