"""llm.c's two files, read back as its C code reads them."""

import struct

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import ModelError
from myna.model.config import GPTOptions
from myna.model.exchange.llmc import write
from myna.model.gpt2_layout import gpt2_logits

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12}


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = GPT(GPTConfig(**SHAPE, vocab_size=257)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
        network.wte.weight[257:].zero_()
    return network


def read_model(path):
    """The header and the 16 tensors of train_gpt2.c's ParameterTensors, in its order."""
    data = path.read_bytes()
    header = struct.unpack("<256i", data[:1024])
    _, version, T, _, L, _, C, Vp = header[:8]
    numbers = np.frombuffer(data[1024:], {3: "<f4", 5: "<u2"}[version])
    if version == 5:  # the upper half of an fp32 number
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    shapes = {
        "wte": (Vp, C), "wpe": (T, C), "ln1w": (L, C), "ln1b": (L, C), "qkvw": (L, 3 * C, C), "qkvb": (L, 3 * C),
        "attprojw": (L, C, C), "attprojb": (L, C), "ln2w": (L, C), "ln2b": (L, C), "fcw": (L, 4 * C, C),
        "fcb": (L, 4 * C), "fcprojw": (L, C, 4 * C), "fcprojb": (L, C), "lnfw": (C,), "lnfb": (C,),
    }  # fmt: skip
    tensors, at = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        tensors[name] = torch.from_numpy(numbers[at : at + size].reshape(shape).copy())
        at += size
    assert at == len(numbers)
    return header, tensors


OURS = {
    "ln1w": "ln_1.weight", "ln1b": "ln_1.bias", "qkvw": "attn.c_attn.weight", "qkvb": "attn.c_attn.bias",
    "attprojw": "attn.c_proj.weight", "attprojb": "attn.c_proj.bias", "ln2w": "ln_2.weight", "ln2b": "ln_2.bias",
    "fcw": "mlp.c_fc.weight", "fcb": "mlp.c_fc.bias", "fcprojw": "mlp.c_proj.weight", "fcprojb": "mlp.c_proj.bias",
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "version"), [("fp32", 3), ("bf16", 5)])
def test_every_tensor_is_read_back_and_computes_the_same(network, tmp_path, dtype, version):
    write(tmp_path, network, Tokenizer.bytes(), dtype)
    header, theirs = read_model(tmp_path / "model.bin")
    assert header[:8] == (20240326, version, 12, 257, 2, 2, 16, 384)
    assert set(header[8:]) == {0}
    assert not theirs["wte"][257:].any()
    weights = {
        "wte.weight": theirs["wte"],
        "wpe.weight": theirs["wpe"],
        "ln_f.weight": theirs["lnfw"],
        "ln_f.bias": theirs["lnfb"],
    }
    for name, our in OURS.items():
        weights |= {f"h.{layer}.{our}": theirs[name][layer] for layer in range(2)}
    for name, parameter in network.named_parameters():
        wanted = parameter.detach() if dtype == "fp32" else parameter.detach().bfloat16().float()
        assert torch.equal(weights[name], wanted), name
    ids = torch.randint(257, (2, 12))
    with torch.no_grad():
        difference = (gpt2_logits(weights, ids, network.config) - network(ids)).abs().max()
    assert difference < (1e-4 if dtype == "fp32" else 0.5)


def read_tokenizer(path):
    """As llmc/tokenizer.h reads it."""
    data = path.read_bytes()
    magic, version, n, eot = struct.unpack("<4I", data[:16])
    assert (magic, version) == (20240328, 2)
    tokens, at = [], 1024
    for _ in range(n):
        length = data[at]
        tokens.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    assert at == len(data)
    return tokens, eot


def test_every_token_is_read_back(tmp_path):
    tokenizer = Tokenizer.gpt2()
    write(tmp_path, GPT(GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=4)), tokenizer, "fp32")
    tokens, eot = read_tokenizer(tmp_path / "gpt2_tokenizer.bin")
    assert eot == 50256
    assert tokens == [tokenizer.token_bytes(i) for i in range(50257)]
    assert b"".join(tokens[i] for i in tokenizer.encode("naïve 漢字")).decode() == "naïve 漢字"


def test_a_vocabulary_that_needs_no_padding_gets_none(tmp_path):
    text = [f"{n} bottles on the wall {n * n}" for n in range(200)]
    tokenizer = Tokenizer.train(text, vocab_size=384)
    write(tmp_path, GPT(GPTConfig(**SHAPE, vocab_size=384)), tokenizer, "fp32")
    assert read_model(tmp_path / "model.bin")[0][3:8] == (384, 2, 2, 16, 384)


def test_what_llmc_cannot_hold_is_refused_by_name(network, tmp_path):
    exact = GPT(GPTConfig(**SHAPE, vocab_size=257, options=GPTOptions(gelu="exact")))
    with pytest.raises(ModelError, match=r"llm\.c computes GPT-2 with the tanh form"):
        write(tmp_path, exact, Tokenizer.bytes(), "fp32")
    with pytest.raises(ModelError, match="has 50257 ids and the model 257"):
        write(tmp_path, network, Tokenizer.gpt2(), "fp32")
    ranks = {bytes([byte]): byte for byte in range(256)}
    for special, says in (({}, "id 256 of the tokenizer ranks has 0"), ({"x" * 256: 256}, "ranks has 256")):
        tokenizer = Tokenizer.from_ranks(ranks, "gpt2", {"<|endoftext|>": 257, **special})
        with pytest.raises(ModelError, match=says):
            write(tmp_path, GPT(GPTConfig(**SHAPE, vocab_size=258)), tokenizer, "fp32")
    assert list(tmp_path.iterdir()) == []
