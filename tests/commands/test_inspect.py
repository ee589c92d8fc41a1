"""`myna inspect`: what it writes and says, and what it refuses."""

import json
import sys

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.evaluate.inspect.parts import PARTS
from myna.model.checkpoint import checkpoint_name

PROMPT = "7 green bottles"


@pytest.fixture
def run(train, tmp_path):
    return train(tmp_path / "run", 4, "--checkpoint-every", 2)


@pytest.fixture
def model(tmp_path):
    """A folder of a model with byte tokens, no run."""
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=16, vocab_size=257))
    network.save_pretrained(tmp_path / "model", tokenizer=Tokenizer.bytes())
    return tmp_path / "model"


@pytest.fixture
def bare(tmp_path):
    """The same without a tokenizer."""
    GPT(GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=16, vocab_size=300)).save_pretrained(
        tmp_path / "bare"
    )
    return tmp_path / "bare"


def inspect(capsys, *args):
    """The exit code, and what it said."""
    capsys.readouterr()
    code = main(["inspect", *map(str, args)])
    return code, capsys.readouterr()


def test_a_run_is_shown_whole(run, capsys):
    code, said = inspect(capsys, run.path, "--prompt", PROMPT, "--json")
    assert (code, said.err) == (0, "")
    shown = json.loads(said.out)
    assert set(PARTS) <= set(shown)
    out = run.path / "inspect"
    files = {path.name for path in out.iterdir()}
    assert files == {shown["page"].rpartition("/")[2], *(one.rpartition("/")[2] for one in shown["pictures"])}
    for name in files - {"inspect.html"}:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / "inspect.html").read_text("utf-8")
    for title in ("Tensors", "Logit lens", "Under-trained tokens", "Nearest tokens"):
        assert f"<h2>{title}</h2>" in page
    assert 'src="http' not in page
    # The numbers are those of the model itself.
    network = GPT.from_pretrained(run.path)
    ids = Tokenizer.bytes().encode(PROMPT)
    with torch.no_grad():
        p, said_next = network(torch.tensor([ids]))[0].softmax(dim=-1).max(dim=-1)
    last = shown["lens"]["layers"][-1]
    assert last["ids"] == said_next.tolist()
    assert last["probabilities"] == pytest.approx(p.tolist(), abs=1e-6)
    assert shown["tensors"]["parameters"] == network.n_parameters()
    assert [one["step"] for one in shown["smoothness"]["checkpoints"]] == [2, 4]
    assert [len(layer) for layer in shown["attention"]["layers"]] == [2, 2]
    assert (run.path / "checkpoints" / checkpoint_name(4)).is_dir()


def test_any_other_model_is_shown_here(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, said = inspect(capsys, "model", "--show", "tensors, nearest", "--token", "a")
    assert code == 0
    assert {path.name for path in (tmp_path / "inspect").iterdir()} == {"inspect.html", "tensors.png"}
    assert "they are tied" in said.out
    assert 'Nearest to "a"' not in said.out  # captions are the page's
    assert said.out.rstrip().endswith("inspect/inspect.html and 1 picture")
    before = sorted(model.iterdir())
    assert inspect(capsys, "model", "--show", "smoothness", "--out", "elsewhere")[0] == 0
    assert sorted(model.iterdir()) == before


def test_without_a_tokenizer_what_needs_one_is_left_out(bare, tmp_path, capsys):
    out = tmp_path / "out"
    code, said = inspect(capsys, bare, "--out", out)
    assert code == 0
    assert "left out: attention, lens, nearest, undertrained (see --tokenizer)" in said.err
    assert "weights_layer_0.png" in {path.name for path in out.iterdir()}
    code, said = inspect(
        capsys, bare, "--out", out, "--tokenizer", "bytes", "--show", "nearest", "--token", "65"
    )
    assert code == 0
    assert '"A"' not in said.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--layer", "2"], "there is no layer 2; the model has 2: give 0 to 1"),
        (["--layer", "-1"], "there is no layer -1"),
        (["--show", "weight"], "there is no part 'weight'; did you mean weights?"),
        (["--show", "lens,"], "there is no part ''"),
        (["--token", "ab"], '--token \'ab\' is 2 tokens: 97 "a", 98 "b"; give one of them'),
        (["--token", "257"], "--token 257: the tokenizer's ids are 0 to 256; give one of those"),
        (["--prompt", "x" * 17], "--prompt is 17 tokens, and the model's window 16; shorten it"),
        (["--channels", "8"], "--channels 8: the model has channels 0 to 7; give some of those"),
        (["--out", "model"], "which is for the model's own files"),
        (["--out", "model/inspect"], "which is for the model's own files"),
        (["--out", "file"], "--out file is a file; give a folder"),
        (["--out", "hub/models--gpt2/x"], "which is for the hub's cache"),
        (["--token", ""], "--token is empty"),
        (["--tokenizer", "gpt2"], "tokenizer gpt2 has 50257 ids and the model 257"),
    ],
)
def test_a_wrong_call_is_a_line_and_writes_nothing(model, tmp_path, monkeypatch, capsys, args, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    code, said = inspect(capsys, "model", *args)
    assert code == 2
    assert says in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("args", [["--prompt", "x"], ["--token", "x"], ["--show", "lens"]])
def test_what_needs_a_tokenizer_is_refused_where_it_was_asked_for(bare, tmp_path, capsys, args):
    code, said = inspect(capsys, bare, *args, "--out", tmp_path / "out")
    assert code == 2
    assert "has no tokenizer beside the weights" in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused(model, tmp_path, capsys):
    network = GPT.from_pretrained(model)
    network.ln_f.bias.data[0] = torch.inf
    network.save_pretrained(tmp_path / "odd", tokenizer=Tokenizer.bytes())
    code, said = inspect(capsys, tmp_path / "odd", "--out", tmp_path / "out")
    assert code == 2
    assert "ln_f.bias holds a NaN or an infinity" in said.err
    assert not (tmp_path / "out").exists()


def test_an_empty_prompt_is_the_beginning_of_a_document(model, tmp_path, capsys):
    args = ["--show", "attention,lens", "--json", "--out", tmp_path / "out"]
    code, said = inspect(capsys, model, "--prompt", "", *args)
    assert code == 0
    assert json.loads(said.out)["lens"]["prompt_ids"] == [256]


def test_a_token_that_is_a_number_is_an_id_and_names_are_tokens(model, tmp_path, capsys):
    for given, id in (("65", 65), ("A", 65), ("<|endoftext|>", 256)):
        code, said = inspect(
            capsys, model, "--show", "nearest", "--token", given, "--json", "--out", tmp_path / "o"
        )
        assert code == 0
        (one,) = json.loads(said.out)["nearest"]["tokens"]
        assert (one["id"], len(one["nearest"])) == (id, 20)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a folder where not even root can write")
def test_a_place_that_cant_be_written_is_refused_before_the_work(model, capsys, monkeypatch):
    monkeypatch.setattr("myna.evaluate.inspect.look.look", None)
    code, said = inspect(capsys, model, "--out", "/proc/look")
    assert (code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "cannot write to the folder /proc/look" in said.err
