"""nanochat's first network, written out from its formulas, its two files as it saves them, and what is refused."""

import collections
import json

import pytest
import torch

from myna import Tokenizer
from myna.cli import main
from myna.errors import ModelError
from myna.model.exchange.foreign import read_foreign
from myna.model.open import open_model

CONFIG = {"sequence_len": 24, "vocab_size": 257, "n_layer": 2, "n_head": 4, "n_kv_head": 4, "n_embd": 32}
IDS = torch.randint(0, 257, (3, 20), generator=torch.Generator().manual_seed(1))


class TheirGPT:
    """The function of nanochat's gpt.py of 2025, in fp32; rotary tables are not rounded to bf16."""

    def __init__(self, c):
        self.c, C, D = c, c["n_embd"], c["n_embd"] // c["n_head"]
        rows = -(-c["vocab_size"] // 64) * 64
        generator = torch.Generator().manual_seed(0)

        def normal(*shape, std):
            return torch.randn(shape, generator=generator) * std

        self.weights = collections.OrderedDict()
        self.weights["transformer.wte.weight"] = normal(rows, C, std=1.0).bfloat16()
        for i in range(c["n_layer"]):
            h = f"transformer.h.{i}"
            self.weights[f"{h}.attn.c_q.weight"] = normal(C, C, std=0.3)
            self.weights[f"{h}.attn.c_k.weight"] = normal(c["n_kv_head"] * D, C, std=0.3)
            self.weights[f"{h}.attn.c_v.weight"] = normal(c["n_kv_head"] * D, C, std=0.3)
            self.weights[f"{h}.attn.c_proj.weight"] = normal(C, C, std=0.3)
            self.weights[f"{h}.mlp.c_fc.weight"] = normal(4 * C, C, std=0.3)
            self.weights[f"{h}.mlp.c_proj.weight"] = normal(C, 4 * C, std=0.1)
        self.weights["lm_head.weight"] = normal(rows, C, std=2.0)

    def __call__(self, ids):
        c, w = self.c, {name: tensor.float() for name, tensor in self.weights.items()}
        (B, T), H, D = ids.shape, c["n_head"], c["n_embd"] // c["n_head"]

        def norm(x):
            return x * (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).rsqrt()

        frequencies = 10_000.0 ** -(torch.arange(0, D, 2) / D)
        angles = torch.outer(torch.arange(T).float(), frequencies)[None, :, None, :]
        cos, sin = angles.cos(), angles.sin()

        def turned(x):
            x1, x2 = x[..., : D // 2], x[..., D // 2 :]
            return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1)

        x = norm(w["transformer.wte.weight"][ids])
        for i in range(c["n_layer"]):
            h, y = f"transformer.h.{i}", norm(x)
            q = norm(turned((y @ w[f"{h}.attn.c_q.weight"].T).view(B, T, H, D)))
            k = norm(turned((y @ w[f"{h}.attn.c_k.weight"].T).view(B, T, c["n_kv_head"], D)))
            v = (y @ w[f"{h}.attn.c_v.weight"].T).view(B, T, c["n_kv_head"], D)
            seen = torch.zeros(B, T, H, D)
            for head in range(H):
                of = head * c["n_kv_head"] // H
                scores = torch.einsum("btd,bsd->bts", q[:, :, head], k[:, :, of]) / D**0.5
                later = torch.ones(T, T).triu(1).bool()
                seen[:, :, head] = scores.masked_fill(later, -torch.inf).softmax(-1) @ v[:, :, of]
            x = x + seen.view(B, T, H * D) @ w[f"{h}.attn.c_proj.weight"].T
            inner = (norm(x) @ w[f"{h}.mlp.c_fc.weight"].T).clamp(min=0).square()
            x = x + inner @ w[f"{h}.mlp.c_proj.weight"].T
        return 15 * torch.tanh(norm(x) @ w["lm_head.weight"][: c["vocab_size"]].T / 15)


@pytest.fixture
def write(tmp_path):
    """Writes both files as nanochat does, and gives the path of the weights and the network that wrote them."""

    def write(name="model_021400.pt", prefix="", tensors=None, without=(), meta=None, said=None, **shape):
        config = CONFIG | shape
        their = TheirGPT(config)
        state = collections.OrderedDict(
            (prefix + name, tensor) for name, tensor in their.weights.items() if name not in without
        )
        torch.save(collections.OrderedDict(state, **(tensors or {})), tmp_path / name)
        about = {
            "step": 21400,
            "val_bpb": 0.81234567,
            "model_config": config | (said or {}),
            "user_config": {},
        }
        (tmp_path / "meta_021400.json").write_text(json.dumps(about if meta is None else meta))
        return tmp_path / name, their

    return write


def import_(*args):
    return main(["import", *map(str, args)])


def built(path, n_vocab=257):
    return read_foreign(path).build(n_vocab, None)


def check_equal(network, their):
    with torch.no_grad():
        torch.testing.assert_close(network(IDS), their(IDS), atol=1e-4, rtol=0)


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_checkpoint_becomes_a_folder_with_equal_logits(write, tmp_path, capsys, prefix):
    transformers = pytest.importorskip("transformers")
    path, their = write(prefix=prefix)
    assert float(their(IDS).abs().max()) > 12  # the softcap is felt
    out = tmp_path / "out"
    assert import_(path, "--out", out, "--tokenizer", "bytes") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: {257 * 32 * 2 + 2 * 12 * 32 * 32:,} parameters from {path}, nanochat's checkpoint of step 21,400, "
        "validation 0.8123 bits per byte",
        "  cut rows 257 to 319 of the embedding and the head: no id stands for them",
        "  softcap 15, rotary base 10,000, epsilon 1.2e-07: as nanochat's code has them, since its files don't say",
        "  tokenizer: bytes",
    ]
    opened = open_model(out)
    assert opened.model.config.block_size == 24
    # The other constants show in the logits; this one hardly does.
    assert opened.model.config.options.norm_epsilon == torch.finfo(torch.float32).eps
    assert opened.tokenizer == Tokenizer.bytes()
    check_equal(opened.model, their)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    check_equal(lambda ids: loaded(ids).logits, their)


def test_shared_keys_and_values_are_copied_to_their_heads(write):
    path, their = write(n_kv_head=2)
    network, notes = built(path)
    check_equal(network, their)
    assert "copied the keys and values of 2 heads to the 4 that share them" in notes[1]


def test_scales_that_were_never_trained_are_left_out(write):
    neutral = {"resid_lambdas": torch.ones(2), "x0_lambdas": torch.zeros(2)}
    path, their = write(tensors=neutral, said={"window_pattern": "L"})
    network, notes = built(path)
    check_equal(network, their)
    assert notes[0] == "left out resid_lambdas and x0_lambdas, which change nothing"


def test_a_window_that_sees_everything_is_no_window(write):
    path, their = write(
        said={"window_pattern": "LS"}
    )  # of two layers the last is full whatever the pattern says
    check_equal(built(path)[0], their)


def test_without_a_tokenizer_the_ids_are_those_of_the_meta_file(write, tmp_path, capsys):
    path, _ = write(vocab_size=300)
    (tmp_path / "tokenizer.pkl").write_bytes(b"never opened")
    assert import_(path, "--out", tmp_path / "new" / "out") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "in tokenizer.pkl, a pickle, which Myna never opens" in err
    assert "--tokenizer none for the weights alone" in err
    assert not (tmp_path / "new").exists()
    assert import_(path, "--out", tmp_path / "out", "--tokenizer", "gpt2") == 2
    assert "has a vocabulary of 300, and tokenizer gpt2 has 50,257 ids" in capsys.readouterr().err
    assert import_(path, "--out", tmp_path / "out", "--tokenizer", "none", "--gelu", "tanh") == 2
    assert f"--gelu is tanh, and the network of {path} has no GELU" in capsys.readouterr().err
    assert import_(path, "--out", tmp_path / "out", "--tokenizer", "none") == 0
    assert "tokenizer: none" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 300


NUMBERS_BY_TWO = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)


def test_a_tokenizer_file_with_nanochats_pattern_and_tokens_goes_with_it(write, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers

    their = tokenizers.Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(tokenizers.Regex(NUMBERS_BY_TWO), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    their.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    their.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=as_bytes.alphabet(), show_progress=False
    )
    their.train_from_iterator(["hello world 12345 "], trainer)
    their.add_special_tokens(["<|bos|>", "<|user_start|>", "<|assistant_end|>"])
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    their.save(str(folder / "tokenizer.json"))
    path, _ = write(vocab_size=their.get_vocab_size())
    assert import_(path, "--out", tmp_path / "out", "--tokenizer", folder) == 0
    mine = Tokenizer.load(tmp_path / "out")
    text = "hello world 1234567\n"
    assert mine.encode(text) == their.encode(text).ids
    assert mine.eot == their.token_to_id("<|bos|>")


def lambdas(**changed):
    neutral = {"resid_lambdas": torch.ones(2), "x0_lambdas": torch.zeros(2)}
    return neutral | {name: torch.tensor(values) for name, values in changed.items()}


ZEROS = torch.zeros(320, 32)
ATTENTION, GATE = "transformer.h.1.attn.c_k.weight", "transformer.h.1.attn.ve_gate.weight"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        # Networks of later versions.
        ({"tensors": {"value_embeds.1.weight": ZEROS}}, "has value embeddings (value_embeds.1.weight), and"),
        ({"tensors": {GATE: torch.zeros(4, 32)}}, f"value embeddings ({GATE})"),
        ({"tensors": lambdas(resid_lambdas=[1.0, 1.1])}, "scales of the residual stream (resid_lambdas)"),
        ({"tensors": lambdas(x0_lambdas=[0.0, 0.1])}, "scales of the residual stream (x0_lambdas)"),
        ({"tensors": lambdas(x0_lambdas=[0.0])}, "scales of the residual stream (x0_lambdas)"),
        ({"tensors": {"smear_gate.weight": torch.zeros(1, 24)}}, "(smear) (smear_gate.weight)"),
        ({"tensors": {"backout_lambda": torch.zeros(1)}}, "(backout) (backout_lambda)"),
        ({"tensors": {"bigram_embed.embed.weight": ZEROS}}, "embeddings of pairs of tokens"),
        ({"tensors": {"transformer.h.0.attn_norm.weight": torch.ones(32)}}, "tensors unknown here"),
        ({"tensors": {"smear_lambda": torch.zeros(1), "backout_lambda": torch.zeros(1)}}, "_lambda), a difference"),
        ({"said": {"window_pattern": "SSSL"}}, "window_pattern SSSL has layers that see the last tokens alone"),
        ({"said": {"window_pattern": "sl"}}, "window_pattern sl has layers"),
        ({"said": {"window_pattern": ""}}, "window_pattern is ''; nanochat's is made of S and L"),
        ({"said": {"window_pattern": 3}}, "window_pattern is 3"),
        ({"said": {"short_seq_len": 512}}, "model_config has short_seq_len, which nanochat's first network has not"),
        # Files that don't fit each other, or a damaged one.
        ({"meta": []}, "holds no JSON object"),
        ({"meta": {"step": 3}}, "meta_021400.json has no model_config"),
        ({"meta": {"model_config": {"n_layer": 2}}}, "model_config lacks n_head, n_embd, sequence_len, vocab_size, "),
        ({"said": {"n_head": 3}}, "does not divide into n_head 3"),
        ({"said": {"n_head": 32}}, "heads are 1 wide"),
        ({"said": {"n_layer": "2"}}, "n_layer is '2'"),
        ({"said": {"n_kv_head": 3}}, "n_kv_head is 3, and n_head 4 is no multiple of it"),
        ({"said": {"n_kv_head": 0}}, "n_kv_head is 0"),
        ({"said": {"n_kv_head": True}}, "n_kv_head is True"),
        ({"said": {"n_kv_head": 2}}, "and 2 heads of keys and values lead to (16, 32)"),
        ({"said": {"n_layer": 1}}, "'transformer.h.1.attn.c_k.weight', and its meta file"),
        ({"said": {"n_layer": 3}}, "6 tensors are missing, 'transformer.h.2.attn.c_k."),
        ({"said": {"n_embd": 64}}, "has shape"),
        ({"said": {"vocab_size": 256}}, "wte.weight is (320, 32), and"),
        ({"without": ["lm_head.weight"]}, "the shape of lm_head.weight is None"),
        ({"tensors": {"lm_head.weight": torch.tensor(1.0)}}, "the shape of lm_head.weight is ()"),
        ({"without": [ATTENTION]}, f"1 tensors are missing, '{ATTENTION}'"),
        ({"tensors": {ATTENTION: torch.zeros(32, 32, dtype=torch.int8)}}, "is no tensor of plain floating-point"),
        ({"tensors": {f"_orig_mod.{ATTENTION}": torch.zeros(32, 32)}}, "is there twice"),
        ({"name": "d20.pt"}, "need their meta file: call them model_NNNNNN.pt and meta_NNNNNN.json"),
        ({"name": "model_000001.pt"}, "meta_000001.json is missing, and the weights alone don't tell the number of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_a_line(write, tmp_path, files, says):
    path, _ = write(**files)
    with pytest.raises(ModelError) as caught:
        built(path)
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_meta_file_that_is_cut_off_is_a_line(write, tmp_path, capsys):
    path, _ = write()
    meta = tmp_path / "meta_021400.json"
    meta.write_text(meta.read_text()[:-9])
    assert import_(path, "--out", tmp_path / "out", "--tokenizer", "none") == 2
    err = capsys.readouterr().err
    assert f"{meta} is not JSON" in err
    assert "copy it again" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
