import json
from pathlib import Path

import pytest
import torch

from myna.cli import main
from myna.generate.engine import Engine, generate
from myna.generate.many import rows_at_once
from myna.generate.text import TextEngine
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.model.matrix import Int8Matrix
from myna.model.quantize import resolve_weights
from myna.text.fim import with_fim_tokens
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


@pytest.mark.parametrize(
    ("flags", "dtype", "stored"),
    [
        (("--precision", "bf16"), torch.bfloat16, torch.float32),
        (("--precision", "fp32"), None, torch.float32),
        (("--weights", "bf16"), None, torch.bfloat16),
        (("--weights", "int8"), None, Int8Matrix),
    ],
)
def test_weights_and_precision_are_taken(model_folder, monkeypatch, capsys, flags, dtype, stored):
    taken = []

    class Spy(TextEngine):
        def __init__(self, model, tokenizer, *, autocast_dtype):
            weight = model.blocks[0].attn.c_attn.weight
            taken.append((autocast_dtype, type(weight) if stored is Int8Matrix else weight.dtype))
            super().__init__(model, tokenizer, autocast_dtype=autocast_dtype)

    monkeypatch.setattr("myna.generate.text.TextEngine", Spy)
    call = ("sample", str(model_folder), "--prompt", "A", "--max-tokens", "3", "--device", "cpu", *flags)
    assert main(call) == 0
    assert taken == [(dtype, stored)]


@pytest.mark.parametrize(
    ("instructions", "fp16", "weights", "scoring"),
    [
        ({"avx2"}, True, "fp16", "fp32"),
        ({"avx2"}, False, "fp32", "fp32"),
        ({"avx512_bf16"}, True, "fp16", "bf16"),
        ({"avx512_bf16"}, False, "bf16", "bf16"),
        ({"amx_bf16", "avx512_bf16"}, True, "bf16", "bf16"),
    ],
)
def test_auto_takes_what_the_processor_is_made_for(monkeypatch, instructions, fp16, weights, scoring):
    monkeypatch.setattr("myna.model.quantize.cpu_flags", lambda: frozenset(instructions))
    monkeypatch.setattr("myna.model.quantize.has_fp16_kernel", lambda: fp16)
    assert resolve_weights("auto", torch.device("cpu"))[0] == weights
    assert resolve_weights("auto", torch.device("cpu"), generates=False)[0] == scoring


@pytest.mark.parametrize(("value", "code"), [(1e5, 0), (float("nan"), 2)])
def test_auto_looks_at_the_weights(model_folder, monkeypatch, capsys, value, code):
    monkeypatch.setattr("myna.model.quantize.cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("myna.model.quantize.has_fp16_kernel", lambda: True)
    model = GPT.from_pretrained(model_folder)
    with torch.no_grad():
        model.blocks[0].mlp.c_fc.weight[0, 0] = value
    model.save_pretrained(model_folder)
    assert (
        main(["sample", str(model_folder), "--prompt", "A", "--max-tokens", "3", "--device", "cpu"]) == code
    )
    said = capsys.readouterr().err
    assert ("mlp.c_fc.weight holds a NaN" in said) == (code == 2)
    assert "--weights" not in said


def test_prompts_come_from_a_file_and_each_is_what_it_is_alone(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("myna.generate.many.MOST_ROWS", 3)  # fewer than there are texts
    prompts = ["one", "two <|endoftext|>", "  three", "é"]
    (tmp_path / "p.txt").write_text("\n".join(["one", "", *prompts[1:]]) + "\n", "utf-8")
    lines = [
        json.dumps(prompt) if n % 2 else json.dumps({"prompt": prompt}) for n, prompt in enumerate(prompts)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), "utf-8")
    options = ("--count", 2, "--max-tokens", 12, "--seed", 3)
    for name in ("p.txt", "p.jsonl"):
        assert sample(model_folder, "--file", tmp_path / name, "--json", *options) == 0
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        wanted = [
            (prompt, number, text[len(prompt) :])
            for prompt in prompts
            for number, text in enumerate(expected(model_folder, prompt, max_tokens=12, seed=3)[:2])
        ]
        assert [(one["prompt"], one["number"], one["text"]) for one in said] == wanted
        assert {(one["tokens"], one["finish_reason"], one["seed"]) for one in said} <= {
            *((n, "stop", 3) for n in range(12)),
            (12, "length", 3),
        }


def test_several_models_say_the_same_prompt_one_after_the_other(model_folder, capsys):
    assert sample(model_folder, model_folder, "--prompt", "A", "--max-tokens", 5) == 0
    before, first, second = capsys.readouterr().out.split(f"=== {model_folder} ===\n")
    assert before == ""
    assert first == second  # one seed for all
    assert first.startswith("A")


def test_a_model_that_is_not_there_is_found_before_another_has_written(model_folder, tmp_path, capsys):
    assert sample(model_folder, tmp_path / "absent", "--prompt", "A", "--max-tokens", 5) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path / 'absent'} is no model" in err


def test_a_line_of_prompts_ends_at_a_line_break_alone(model_folder, tmp_path, capsys):
    """Not at a form feed, nor at U+2028, which JSON need not escape. A mark of UTF-8 is no part of the first."""
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfone\x0ctwo\r\n\xe2\x80\xa8three\n")
    (tmp_path / "p.jsonl").write_bytes(b'\xef\xbb\xbf"a\xe2\x80\xa8b"\n{"prompt": "c\xc2\x85"}')
    for name, prompts in (("p.txt", ["one\x0ctwo", "\u2028three"]), ("p.jsonl", ["a\u2028b", "c\x85"])):
        assert sample(model_folder, "--file", tmp_path / name, "--json", "--max-tokens", 1, "--seed", 1) == 0
        lines = capsys.readouterr().out.split("\n")[:-1]
        assert [json.loads(line)["prompt"] for line in lines] == prompts


def test_a_prompt_that_is_longer_than_the_window_is_told(model_folder, tmp_path, capsys):
    call = (model_folder, "--max-tokens", 3, "--seed", 1)
    with pytest.warns(UserWarning, match="the prompt has more than 32 tokens; the model sees the last 32"):
        assert sample(*call, "--prompt", "x" * 33) == 0
    assert capsys.readouterr().out == expected(model_folder, "x" * 33, max_tokens=3, seed=1)[0] + "\n"
    (tmp_path / "p.txt").write_text("\n".join(["x" * 33, "x" * 32, "x" * 40]))
    with pytest.warns(UserWarning, match="2 of 3 prompts have more than 32 tokens"):
        assert sample(*call, "--file", tmp_path / "p.txt") == 0


def test_the_texts_are_not_listed_before_they_are_made(model_folder, monkeypatch):
    """However many are asked for."""

    def stopped(engine):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "step", stopped)
    assert sample(model_folder, "--prompt", "A", "--count", 10**15) == 130


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
        (("--min-p", "2"), "min-p is 2.0"),
        (("--repetition-penalty", "0"), "repetition-penalty is 0.0"),
        (("--weights", "int8"), "--precision fp32 is of fp32 weights, and --weights is int8"),
        (("--file", "prompts.txt"), "give --prompt TEXT, or --file FILE with prompts (not both)"),
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no prompt"),
        (b"\n \n", "no prompt"),
        (b"\xff\xfe", "cannot be read as text"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_prompts_is_named(model_folder, tmp_path, capsys, content, words):
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    assert sample(model_folder, "--file", tmp_path / "p.txt") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert str(tmp_path / "p.txt") in err


@pytest.mark.parametrize("line", ["{", "3", '{"text": "x"}', '{"prompt": 3}', "null"])
def test_a_line_of_prompts_that_is_none_is_named(model_folder, tmp_path, capsys, line):
    (tmp_path / "p.jsonl").write_text('"good"\n' + line)
    assert sample(model_folder, "--file", tmp_path / "p.jsonl") == 2
    assert "p.jsonl, line 2" in capsys.readouterr().err


def test_no_model_and_no_prompt_are_asked_for(model_folder, capsys):
    assert sample("--prompt", "A") == 2
    assert "no MODEL" in capsys.readouterr().err
    assert sample(model_folder) == 2
    assert "give --prompt TEXT" in capsys.readouterr().err


def test_many_continuations_are_made_a_few_at_a_time(model_folder, monkeypatch, capsys):
    call = (model_folder, "--prompt", "A", "--count", 5, "--max-tokens", 20, "--seed", 3)
    assert sample(*call) == 0
    together = capsys.readouterr().out
    monkeypatch.setattr("myna.generate.many.MOST_ROWS", 2)
    most, step = [], Engine.step
    monkeypatch.setattr(Engine, "step", lambda self: most.append(len(self._running)) or step(self))
    assert sample(*call) == 0
    assert capsys.readouterr().out == together
    assert max(most) == 2


def test_memory_does_not_grow_with_the_count():
    gpt2, huge = GPTConfig(), GPTConfig(n_layer=48, n_embd=6400, n_head=50)
    assert rows_at_once(gpt2) == 28
    assert rows_at_once(huge) == 1


def test_an_empty_name_is_no_model(capsys):
    assert sample("", "--prompt", "A") == 2
    assert "MODEL is an empty name" in capsys.readouterr().err


@pytest.fixture
def filling_folder(tmp_path: Path) -> Path:
    """The same with the tokens to fill in the middle, of 64 positions."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, vocab_size=260))
    model.save_pretrained(tmp_path / "filling", with_fim_tokens(Tokenizer.bytes()))
    return tmp_path / "filling"


def middle(folder: Path, prefix: str, suffix: str, row: int = 0, **options: object) -> str:
    """What stands between, by the ids of the prompt as the paper has them; it ends at any of the special tokens."""
    ids = [256, 257, *prefix.encode(), 259, *suffix.encode(), 258]
    rows = generate(GPT.from_pretrained(folder), [ids] * 3, **options, stop_ids=range(256, 260))
    return Tokenizer.bytes().decode(rows[row])


def test_a_middle_is_printed_between_its_prompt_and_its_suffix(filling_folder, tmp_path, capsys):
    call = (filling_folder, "--suffix", "<|fim_middle|> end", "--max-tokens", 12, "--seed", 3)
    wanted = [
        middle(filling_folder, "Once ", "<|fim_middle|> end", row, max_tokens=12, seed=3) for row in (0, 1)
    ]
    assert sample(*call, "--prompt", "Once ") == 0
    assert capsys.readouterr().out == f"Once {wanted[0]}<|fim_middle|> end\n"
    assert sample(*call, "--prompt", "Once ", "--count", 2) == 0
    texts = [f"--- {n} of 2 ---\nOnce {text}<|fim_middle|> end\n" for n, text in enumerate(wanted, start=1)]
    assert capsys.readouterr().out == "".join(texts)
    (tmp_path / "p.txt").write_text("Once \nOn")
    assert sample(*call, "--file", tmp_path / "p.txt", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["prompt"], one["suffix"], one["text"]) for one in said] == [
        ("Once ", "<|fim_middle|> end", wanted[0]),
        (
            "On",
            "<|fim_middle|> end",
            middle(filling_folder, "On", "<|fim_middle|> end", max_tokens=12, seed=3),
        ),
    ]


def test_a_middle_ends_at_a_frame(filling_folder, monkeypatch, capsys):
    """Else one would be printed by its name."""
    ids = iter([97, 257, 98])
    monkeypatch.setattr("myna.generate.engine.choose", lambda logits, draws: [next(ids)])
    call = ("--prompt", "x", "--suffix", "z", "--seed", 1, "--max-tokens", 9)
    assert sample(filling_folder, *call) == 0
    assert capsys.readouterr().out == "xaz\n"


def test_what_does_not_fit_around_a_middle_is_told(filling_folder, capsys):
    call = ("--suffix", "s" * 40, "--max-tokens", 10, "--seed", 3, "--temperature", 0)
    words = (
        "of which 10 are kept free for the middle; the model does not see the first 15 tokens of the prompt"
    )
    with pytest.warns(UserWarning, match=f"{words} and the last 15 tokens of the suffix$"):
        assert sample(filling_folder, "--prompt", "p" * 40, *call) == 0
    seen = middle(filling_folder, "p" * 25, "s" * 25, max_tokens=10, temperature=0)
    assert capsys.readouterr().out == "p" * 40 + seen + "s" * 40 + "\n"


def test_a_middle_does_not_slide(filling_folder, capsys):
    """The special tokens stand at the window's left end: without them there would be no suffix any more."""
    call = ("--prompt", "p", "--suffix", "s" * 26, "--max-tokens", 200, "--seed", 3, "--json")
    assert sample(filling_folder, *call, "--count", 5) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert max(one["tokens"] for one in said) == 64 - (4 + 1 + 26) + 1  # the window, and one id drawn from it
    assert said[0]["text"] == middle(filling_folder, "p", "s" * 26, max_tokens=34, seed=3)


def test_a_model_that_cannot_fill_is_refused(model_folder, capsys):
    assert sample(model_folder, "--prompt", "A", "--suffix", "") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "has no tokens to fill in the middle (<|fim_prefix|>, <|fim_middle|>, <|fim_suffix|>)" in err
    assert "myna train RECIPE --data DATA --fim-rate 0.5" in err
    assert err.count("\n") == 1


def test_compile_is_for_several_texts_and_says_why_it_failed(model_folder, monkeypatch, capsys):
    compiled = []
    monkeypatch.setattr(
        "myna.generate.engine.Engine.compile_step", lambda self: compiled.append(1) or "no C++ compiler"
    )
    call = ("sample", str(model_folder), "--prompt", "A", "--max-tokens", "3", "--device", "cpu", "--compile")
    with pytest.warns(UserWarning, match="torch.compile failed, writing without it: no C"):
        assert main((*call, "--count", "2", "--json")) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 2
    assert main(call) == 0
    assert compiled == [1]
