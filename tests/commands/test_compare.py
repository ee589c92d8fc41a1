import html
import json
import re
import shutil
import sys

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.evaluate.compare import visible
from myna.model.checkpoint import save_checkpoint
from myna.model.weights import config_files

FLAGS = ("--device", "cpu", "--precision", "fp32", "--max-tokens", "12", "--seed", "3")


def network(seed):
    torch.manual_seed(seed)
    made = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=257)).eval()
    with torch.no_grad():
        made.wte.weight[:257].mul_(20)  # so that two models write different texts
    return made


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two models in folders a and b, and a run with two checkpoints of the same weights."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        network(seed).save_pretrained(tmp_path / name, Tokenizer.bytes())
        made = network(seed)
        save_checkpoint(
            tmp_path / "run" / "checkpoints" / f"step_0000000{seed + 1}",
            made,
            files=config_files(made, Tokenizer.bytes()),
            weights=made.state_dict(),
            tokenizer=Tokenizer.bytes(),
            tensors={},
            state={"samples": 0},
        )
    (tmp_path / "run" / "recipe.json").write_text("{}")
    return tmp_path


def compare(*args):
    return main(["compare", *map(str, args), *FLAGS])


def sampled(capsys, model, prompt, count=1):
    assert main(["sample", model, "--prompt", prompt, "--count", str(count), "--json", *FLAGS]) == 0
    return [prompt + json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]


def test_each_model_writes_what_it_writes_alone(models, capsys):
    a, b = sampled(capsys, "a", "Once", 2), sampled(capsys, "b", "Once", 2)
    assert a[0] != b[0]
    assert compare("a", "b", "--prompt", "Once", "--count", "2") == 0
    assert capsys.readouterr().out == (
        f"--- 1 of 2 ---\n=== a ===\n{a[0]}\n=== b ===\n{b[0]}\n"
        f"--- 2 of 2 ---\n=== a ===\n{a[1]}\n=== b ===\n{b[1]}\n"
        "(seed 3, temperature 1, at most 12 new tokens)\n"
    )


def test_json_is_a_line_for_each_text(models, capsys):
    a, b = sampled(capsys, "a", "Once"), sampled(capsys, "b", "Once")
    assert compare("a", "b", "--prompt", "Once", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["model"], one["prompt"] + one["text"], one["seed"]) for one in said] == [
        ("a", a[0], 3),
        ("b", b[0], 3),
    ]


def test_all_checkpoints_of_a_run_stand_in_the_order_of_training(models, capsys):
    assert compare("run", "b", "--checkpoints", "--prompt", "Once", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    steps = [f"run/checkpoints/step_0000000{n}" for n in (1, 2)]
    assert [one["model"] for one in said] == [*steps, "b"]
    a, b = sampled(capsys, "a", "Once"), sampled(capsys, "b", "Once")
    assert ["Once" + one["text"] for one in said] == [a[0], b[0], b[0]]


def test_a_damaged_checkpoint_of_many_is_left_out_and_named(models, capsys):
    weights = models / "run" / "checkpoints" / "step_00000001" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match=r"model\.safetensors is damaged .*step_00000001 is left out"):
        assert compare("run", "--checkpoints", "--prompt", "Once", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    shutil.rmtree(models / "run" / "checkpoints" / "step_00000002")
    with pytest.warns(UserWarning, match="left out"):
        assert compare("run", "run", "--checkpoints", "--prompt", "Once") == 2
    assert "is sound; give another model" in capsys.readouterr().err
    assert compare("run/checkpoints/step_00000001", "b", "--prompt", "Once") == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_terminal_shows_columns_unless_they_would_be_too_narrow(models, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert compare("a", "b", "--prompt", "Once") == 0
    out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert any(line.split() == ["a", "b"] for line in out.splitlines())
    assert "=== a ===" not in out
    monkeypatch.setenv("COLUMNS", "40")
    assert compare("a", "b", "--prompt", "Once") == 0
    assert "=== a ===" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "takes two models or more, and here is none"),
        (("a",), "here is one; name another MODEL, or give --checkpoints"),
        (("a", "", "--prompt", "x"), "MODEL is an empty name"),
        (("a", "b"), "give --prompt TEXT"),
        (("a", "b", "--prompt", "x", "--count", "0"), "--count is 0"),
        (("a", "b", "--prompt", "x", "--temperature", "-1"), "temperature is -1.0"),
        (("a", "absent/x/y", "--prompt", "x"), "absent/x/y"),
        (("a", "b", "--prompt", "x", "--tokenizer", "gpt2"), "has 50257 ids and the model 257"),
    ],
)
def test_what_cannot_be_compared_is_a_line(models, capsys, args, says):
    assert compare(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_the_page_has_each_models_text_under_its_name(models, capsys):
    a, b = sampled(capsys, "a", "<i>Once", 2), sampled(capsys, "b", "<i>Once", 2)
    assert compare("a", "b", "--prompt", "<i>Once", "--count", "2", "--html", "new/page.html") == 0
    assert capsys.readouterr().out.endswith("new/page.html\n")
    page = (models / "new" / "page.html").read_text("utf-8")
    found = re.findall(r'<p class="pre-label">(.*?)</p><pre[^>]*>\n(.*?)</pre>', page, re.DOTALL)
    assert [(label, html.unescape(text)) for label, text in found] == [
        (name, visible(text))
        for pair in zip(a, b, strict=True)
        for name, text in zip("ab", pair, strict=True)
    ]
    assert "<i>" not in page
    assert "seed 3, temperature 1, at most 12 new tokens" in page


@pytest.mark.parametrize(("out", "says"), [("page.png", "ends in .html"), ("dir.html", "is a folder")])
def test_a_place_for_the_page_that_cannot_be_is_a_line(models, capsys, out, says):
    (models / "dir.html").mkdir()
    assert compare("a", "b", "--prompt", "x", "--html", out) == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a folder where not even root can write")
def test_a_page_that_cant_be_written_is_refused_before_a_model_is_opened(models, capsys, monkeypatch):
    monkeypatch.setattr("myna.commands.compare.open_to_run", None)
    assert compare("a", "b", "--prompt", "x", "--html", "/proc/page.html") == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "cannot write to the folder /proc" in said.err


def test_a_comparison_that_fails_leaves_no_folder_for_its_page(models, capsys):
    assert compare("a", "absent", "--prompt", "x", "--html", "new/page.html") == 2
    assert not (models / "new").exists()
