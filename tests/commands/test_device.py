import json

import pytest

from myna.bench import limits
from myna.cli import main


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr(limits, "best_flops", lambda device, dtype: (2e12, "measured"))
    monkeypatch.setattr(limits, "copy_bytes_per_s", lambda device: 3e10)


def test_the_machine_its_choices_and_a_step(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    assert (
        main(["device", "--recipe", "shakespeare-char", "--device", "cpu", "--micro-batch", "4", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "cpu"
    assert found["cores"] >= 1
    assert found["peaks"]["fp32"] == {"flops": 2e12, "about": "measured"}
    assert found["auto"]["precision"]["choice"] in ("fp32", "bf16")
    assert found["auto"]["weights_to_score"]["choice"] in ("fp32", "bf16")
    assert found["auto"]["compile"] == {"choice": "no", "why": "there is no C++ compiler /nonexistent/c++"}
    assert (found["step"]["recipe"], found["step"]["micro_batch"], found["step"]["passes"]) == (
        "shakespeare-char",
        4,
        8,
    )
    assert found["step"]["flops"] / 2e12 == found["step"]["arithmetic_seconds"]


def test_as_text_with_gpt2_by_default(capsys):
    assert main(["device", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "256 micro-batches of 2 x 1024" in text
    assert "What auto takes here" in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--recipe", "gpt2-142m"], "did you mean gpt2-124m"),
        (["--recipe", "chat-pydoc"], "takes its vocabulary from the model"),
        (["--recipe", ""], "--recipe is empty"),
        (["--micro-batch", "0"], "--micro-batch is 0; give 1 to 512, the sequences of a step of gpt2-124m"),
        (["--micro-batch", "513"], "give 1 to 512"),
        (["--device", "cuda"], "--device cuda"),
    ],
)
def test_a_wrong_call_is_a_line(args, says, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["device", *args]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
