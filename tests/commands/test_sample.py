from pathlib import Path

import pytest
import torch

from myna.cli import main
from myna.commands.sample import rows_at_once
from myna.generate import text as generate_text
from myna.generate.engine import generate, stream
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A small model of random weights and byte tokens, as a Hugging Face folder."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=257))
    model.save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return tmp_path / "model"


def sample(*args: object) -> int:
    return main(["sample", *map(str, args), "--device", "cpu", "--precision", "fp32"])


def expected(folder: Path, prompt: str, **options: object) -> list[str]:
    tok = Tokenizer.bytes()
    rows = generate(GPT.from_pretrained(folder), [tok.encode(prompt)] * 3, **options, stop_ids=[tok.eot])
    return [prompt + tok.decode(row) for row in rows]


def test_one_continuation_is_printed_after_its_prompt(model_folder, capsys):
    assert sample(model_folder, "--prompt", "Once <|endoftext|>", "--max-tokens", 40, "--seed", 3) == 0
    text = expected(model_folder, "Once <|endoftext|>", max_tokens=40, seed=3)[0]
    assert capsys.readouterr().out == text + "\n"


def test_several_continuations_are_set_apart(model_folder, capsys):
    options = ("--temperature", 0.7, "--top-k", 30, "--top-p", 0.9, "--seed", 3)
    assert sample(model_folder, "--prompt", "A", "--count", 3, "--max-tokens", 20, *options) == 0
    texts = expected(model_folder, "A", max_tokens=20, temperature=0.7, top_k=30, top_p=0.9, seed=3)
    assert len(set(texts)) == 3
    assert capsys.readouterr().out == "".join(f"--- {n} of 3 ---\n{t}\n" for n, t in enumerate(texts, 1))


def test_the_precision_is_taken(model_folder, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(
        generate_text, "stream", lambda *a, **k: taken.append(k["autocast_dtype"]) or stream(*a, **k)
    )
    for precision in ("bf16", "fp32"):
        call = ("sample", str(model_folder), "--prompt", "A", "--max-tokens", "3", "--device", "cpu")
        assert main([*call, "--precision", precision]) == 0
    assert taken == [torch.bfloat16, None]


def test_it_ends_before_a_stop_text(model_folder, capsys):
    assert sample(model_folder, "--prompt", "A", "--max-tokens", 40, "--seed", 3) == 0
    whole = capsys.readouterr().out.rstrip("\n")
    stop = whole[12:14]
    call = (model_folder, "--prompt", "A", "--max-tokens", 40, "--seed", 3)
    assert sample(*call, "--stop", "never said", "--stop", stop) == 0
    assert capsys.readouterr().out == "A" + whole[1:].split(stop)[0] + "\n"


def test_a_model_without_a_tokenizer_asks_for_one(model_folder, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model_folder / name).unlink()
    assert sample(model_folder, "--prompt", "A", "--max-tokens", 5, "--seed", 1) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert sample(model_folder, "--prompt", "A", "--max-tokens", 5, "--seed", 1, "--tokenizer", "bytes") == 0
    assert capsys.readouterr().out.rstrip("\n") == expected(model_folder, "A", max_tokens=5, seed=1)[
        0
    ].rstrip("\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--temperature", "-1"), "temperature is -1.0"),
        (("--top-k", "0"), "top-k is 0"),
        (("--top-p", "0"), "top-p is 0.0"),
        (("--top-p", "1.5"), "top-p is 1.5"),
        (("--max-tokens", "-1"), "max tokens is -1"),
        (("--count", "0"), "count is 0"),
        (("--seed", "-1"), "seed is -1"),
        (("--stop", ""), "stop text is empty"),
        (("--tokenizer", "gpt2"), "tokenizer gpt2 has 50257 ids and the model 257"),
    ],
)
def test_a_wrong_value_is_named_in_a_line(model_folder, capsys, flags, words):
    assert sample(model_folder, "--prompt", "A", *flags) == 2
    out, err = capsys.readouterr()
    assert out == ""  # nothing half-written
    assert words in err
    assert err.count("\n") == 1


def test_no_such_model(tmp_path, capsys):
    assert sample(tmp_path / "absent", "--prompt", "A") == 2
    assert str(tmp_path / "absent") in capsys.readouterr().err


def test_many_continuations_are_made_a_few_at_a_time(model_folder, monkeypatch, capsys):
    call = (model_folder, "--prompt", "A", "--count", 5, "--max-tokens", 20, "--seed", 3)
    assert sample(*call) == 0
    together = capsys.readouterr().out
    monkeypatch.setattr("myna.commands.sample.MOST_ROWS", 2)
    rows = []
    monkeypatch.setattr(generate_text, "stream", lambda *a, **k: rows.append(len(a[1])) or stream(*a, **k))
    assert sample(*call) == 0
    assert capsys.readouterr().out == together
    assert rows == [2, 2, 1]


def test_memory_does_not_grow_with_the_count():
    gpt2, huge = GPTConfig(), GPTConfig(n_layer=48, n_embd=6400, n_head=50)
    assert rows_at_once(gpt2) == 28
    assert rows_at_once(huge) == 1


def test_an_empty_name_is_no_model(capsys):
    assert sample("", "--prompt", "A") == 2
    assert "MODEL is an empty name" in capsys.readouterr().err
