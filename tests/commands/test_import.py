"""`myna import`, as somebody calls it who comes from the lecture."""

import json
import os
import pickle
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from myna import GPT, Tokenizer
from myna.cli import main


class Parts(nn.Module):
    """The lecture's network, as its names and shapes; computed by `logits`."""

    def __init__(self, config):
        super().__init__()
        C = config.n_embd

        def block():
            return nn.ModuleDict({
                "ln_1": nn.LayerNorm(C),
                "attn": nn.ModuleDict({"c_attn": nn.Linear(C, 3 * C), "c_proj": nn.Linear(C, C)}),
                "ln_2": nn.LayerNorm(C),
                "mlp": nn.ModuleDict({"c_fc": nn.Linear(C, 4 * C), "c_proj": nn.Linear(4 * C, C)}),
            })  # fmt: skip

        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.vocab_size, C),
            "wpe": nn.Embedding(config.block_size, C),
            "h": nn.ModuleList([block() for _ in range(config.n_layer)]),
            "ln_f": nn.LayerNorm(C),
        })  # fmt: skip
        self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.n_head = config.n_head

    @torch.no_grad()
    def forward(self, ids):
        t = self.transformer
        x = t.wte(ids) + t.wpe.weight[: ids.shape[1]]
        for b in t.h:
            q, k, v = (
                part.unflatten(2, (self.n_head, -1)).transpose(1, 2)
                for part in b.attn.c_attn(b.ln_1(x)).chunk(3, dim=2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + b.attn.c_proj(y)
            x = x + b.mlp.c_proj(F.gelu(b.mlp.c_fc(b.ln_2(x)), approximate="tanh"))
        return self.lm_head(t.ln_f(x))


class GPTConfig:
    def __init__(self, **fields):
        self.__dict__.update(fields)


GPTConfig.__module__ = "__main__"  # where train_gpt2.py is run from


@pytest.fixture
def write(tmp_path):
    def write(vocab_size=50304, **more):
        torch.manual_seed(0)
        config = GPTConfig(block_size=16, vocab_size=vocab_size, n_layer=2, n_head=2, n_embd=8)
        their = Parts(config)
        content = {"model": their.state_dict(), "config": config, "step": 250, "val_loss": 5.5} | more
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules["__main__"], "GPTConfig", GPTConfig, raising=False)
            torch.save(content, tmp_path / "model_00250.pt")
        return tmp_path / "model_00250.pt", their

    return write


def import_(*args):
    return main(["import", *map(str, args)])


def test_the_lectures_checkpoint_becomes_a_folder_that_sample_and_transformers_load(write, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    path, their = write()
    out = tmp_path / "out"
    out.mkdir()  # an empty folder will do
    assert import_(path, "--out", out) == 0
    said = capsys.readouterr().out
    for words in (
        str(path),
        "build-nanogpt's checkpoint of step 250, validation loss 5.5000",
        "cut rows 50,257 to 50,303",
        "GELU: tanh, as its project does",
        "tokenizer: gpt2",
    ):
        assert words in said
    ids = torch.randint(50257, (2, 16))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        torch.testing.assert_close(GPT.from_pretrained(out)(ids), their(ids)[..., :50257], atol=1e-4, rtol=0)
        torch.testing.assert_close(loaded(ids).logits, their(ids)[..., :50257], atol=1e-4, rtol=0)
    assert transformers.AutoTokenizer.from_pretrained(out)("Hello, naïve")["input_ids"] == (
        Tokenizer.gpt2().encode("Hello, naïve")
    )
    assert main(["sample", str(out), "--prompt", "Hello", "--max-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith("Hello")


def test_the_tokenizer_and_the_gelu_are_taken(write, tmp_path, capsys):
    path, _ = write(vocab_size=320)
    assert import_(path, "--out", tmp_path / "out", "--tokenizer", "bytes", "--gelu", "exact") == 0
    assert "GELU: exact, as --gelu says" in capsys.readouterr().out
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["vocab_size"], config["activation_function"]) == (257, "gelu")
    assert Tokenizer.load(tmp_path / "out") == Tokenizer.bytes()
    assert import_(path, "--out", tmp_path / "alone", "--tokenizer", "none") == 0
    assert json.loads((tmp_path / "alone" / "config.json").read_text())["vocab_size"] == 320
    assert not (tmp_path / "alone" / "tokenizer.json").exists()


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def resnet():
    return {"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.running_mean": torch.zeros(64)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda tmp_path: torch.zeros(3), "holds a tensor; give a checkpoint of build-nanogpt"),
        (lambda tmp_path: resnet(), "holds a dict of conv1.weight, bn1.running_mean; give"),
        (lambda tmp_path: Exploit(tmp_path / "ran"), "names posix.system, which reading it could run"),
        (lambda tmp_path: {"model": {}, "config": Exploit(tmp_path / "ran")}, "names posix.system"),
    ],
)
def test_what_is_no_checkpoint_of_theirs_is_a_line(tmp_path, capsys, content, says):
    torch.save(content(tmp_path), tmp_path / "x.pt")
    assert import_(tmp_path / "x.pt", "--out", tmp_path / "new" / "out") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            b"step 0: just a text\n",
            "is nothing that can be imported; give a checkpoint of build-nanogpt, nanoGPT or nanochat",
        ),
        (b"", "is nothing that can be imported"),
        (b"PK\x03\x04 cut off here", "is cut off or damaged"),
        (pickle.dumps({"model": 1}, protocol=2), "cannot be read as a file of torch.save"),
        (None, "No such file"),
    ],
)
def test_a_file_of_another_kind_is_a_line(tmp_path, capsys, data, says):
    if data is not None:
        (tmp_path / "x.pt").write_bytes(data)
    assert import_(tmp_path / "x.pt", "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert says in err
    assert str(tmp_path / "x.pt") in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cut_checkpoint_a_wrong_tokenizer_and_a_full_folder_are_a_line(write, tmp_path, capsys):
    path, _ = write(vocab_size=320)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert import_(path, "--out", tmp_path / "out") == 2
    assert "is cut off or damaged" in capsys.readouterr().err
    path.write_bytes(whole)
    assert import_(path, "--out", tmp_path / "out") == 2
    assert "has a vocabulary of 320, and tokenizer gpt2 has 50,257 ids; name the tokenizer" in (
        capsys.readouterr().err
    )
    assert import_(path, "--out", tmp_path) == 2
    assert f"--out {tmp_path} holds something else" in capsys.readouterr().err
    assert import_(tmp_path, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
