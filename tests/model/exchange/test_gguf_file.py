"""What is written is read back by gguf's own reader: each tensor, each token, the same logits."""

import itertools

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import ModelError
from myna.model.config import GPTOptions
from myna.model.exchange.gguf_file import write
from myna.model.gpt2_layout import gpt2_logits
from myna.model.layout import OwnLayout
from myna.model.network import NETWORKS, NetworkKind
from myna.text import gpt2
from myna.text.chat import with_chat_tokens
from myna.text.fim import with_fim_tokens
from myna.text.vocabulary import CHAT_TEMPLATE

gguf = pytest.importorskip("gguf")

TEXT = "".join(f"{n} green bottles hanging on the wall, {n * 7 % 13} should fall.\n" for n in range(90))
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16}
# llama.cpp's names: src/llama-arch.cpp.
NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT], vocab_size=300, special_tokens=["<|user|>"])


def network_for(tokenizer, **options):
    torch.manual_seed(0)
    network = GPT(GPTConfig(**SHAPE, vocab_size=tokenizer.n_vocab, **options)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
        network.wte.weight[tokenizer.n_vocab :].zero_()
    return network


def read_back(path):
    """The fields and the tensors of a file; a tensor's shape is stored from the last dimension to the first."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {}
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        tensors[tensor.name] = torch.from_numpy(
            np.array(numbers, np.float32).reshape(tuple(reversed(tensor.shape.tolist())))
        )
    return fields, tensors


def our_names(network):
    """Our name of each tensor -> llama.cpp's."""
    found = {}
    for name, _ in network.named_parameters():
        stem, kind = name.rsplit(".", 1)
        layer, _, part = stem.removeprefix("h.").partition(".") if stem.startswith("h.") else ("", "", stem)
        found[name] = f"blk.{layer}.{NAMES[part]}.{kind}" if layer else f"{NAMES[part]}.{kind}"
    return found


@pytest.mark.parametrize(("dtype", "mantissa"), [("fp32", 24), ("fp16", 11), ("bf16", 8)])
def test_every_tensor_is_read_back_and_computes_the_same(tokenizer, tmp_path, dtype, mantissa):
    network = network_for(tokenizer)
    write(tmp_path / "model.gguf", network, tokenizer, dtype)
    _, tensors = read_back(tmp_path / "model.gguf")
    names = our_names(network)
    assert set(tensors) == set(names.values())
    weights = {}
    for name, parameter in network.named_parameters():
        theirs, ours = tensors[names[name]], network.unpadded(name, parameter).detach()
        exact = dtype == "fp32" or ours.dim() == 1 or name == "wpe.weight"
        torch.testing.assert_close(
            theirs, ours, rtol=0 if exact else 2.0**-mantissa, atol=0 if exact else 1e-7
        )
        assert exact or not torch.equal(theirs, ours)
        weights[name] = theirs
    ids = torch.randint(tokenizer.n_vocab, (2, 16))
    with torch.no_grad():
        logits = gpt2_logits(weights, ids, network.config)
        torch.testing.assert_close(logits, network(ids), rtol=0, atol=1e-4 if dtype == "fp32" else 0.5)


def test_the_fields_are_those_of_llama_cpps_converter(tokenizer, tmp_path):
    write(tmp_path / "model.gguf", network_for(tokenizer), tokenizer, "fp32")
    fields, _ = read_back(tmp_path / "model.gguf")
    expected = {
        "general.architecture": "gpt2",
        "general.file_type": 0,
        "gpt2.block_count": 2,
        "gpt2.context_length": 16,
        "gpt2.embedding_length": 32,
        "gpt2.feed_forward_length": 128,
        "gpt2.attention.head_count": 2,
        "gpt2.attention.layer_norm_epsilon": pytest.approx(1e-5),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": tokenizer.eot,
        "tokenizer.ggml.eos_token_id": tokenizer.eot,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: fields[name] for name in expected} == expected


def test_the_frames_of_conversations_and_middles_are_named(tokenizer, tmp_path):
    framed = with_fim_tokens(with_chat_tokens(tokenizer))
    write(tmp_path / "framed.gguf", network_for(framed), framed, "fp32")
    fields, _ = read_back(tmp_path / "framed.gguf")
    assert fields["tokenizer.chat_template"] == CHAT_TEMPLATE
    names = {"eot": "<|im_end|>", "fim_pre": "<|fim_prefix|>", "fim_suf": "<|fim_suffix|>"}
    for field, token in {**names, "fim_mid": "<|fim_middle|>"}.items():
        assert fields[f"tokenizer.ggml.{field}_token_id"] == framed.special_tokens[token]
    write(tmp_path / "plain.gguf", network_for(tokenizer), tokenizer, "fp32")
    fields, _ = read_back(tmp_path / "plain.gguf")
    assert not [name for name in fields if "chat_template" in name or "fim" in name or "eot" in name]


def naive_encoding(fields, text):
    """The ids of a text by the file's own tokens and merges: the first merge of the list that applies, each time."""
    ids = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    found = []
    for word in Tokenizer.gpt2().vocabulary.pattern.split(text):
        parts = list(gpt2.spell(word.encode()))
        while pairs := set(itertools.pairwise(parts)) & set(merges):
            first = min(pairs, key=merges.index)
            at = next(i for i in range(len(parts) - 1) if (parts[i], parts[i + 1]) == first)
            parts[at : at + 2] = ["".join(first)]
        found += [ids[part] for part in parts]
    return found


def test_every_token_is_read_back_and_text_has_the_same_ids(tokenizer, tmp_path):
    write(tmp_path / "model.gguf", network_for(tokenizer), tokenizer, "fp32")
    fields, _ = read_back(tmp_path / "model.gguf")
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(kinds) == tokenizer.n_vocab
    special = set(tokenizer.special_tokens.values())
    for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        assert kind == (gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL)
        assert (token.encode() if i in special else gpt2.to_bytes(token)) == tokenizer.token_bytes(i)
    for text in ("12 green bottles, hanging!", "naïve  漢字\n\n <|endoftext|>"):
        assert naive_encoding(fields, text) == tokenizer.encode(text)


@pytest.mark.slow  # gguf's reader takes seconds for 100,000 strings
def test_gpt2s_own_tokenizer_is_written_whole(tmp_path):
    tokenizer = Tokenizer.gpt2()
    network = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=4))
    write(tmp_path / "model.gguf", network, tokenizer, "fp32")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    tokens = reader.fields["tokenizer.ggml.tokens"]
    merges = reader.fields["tokenizer.ggml.merges"]
    assert (len(tokens.data), len(merges.data)) == (50257, 50000)
    assert tokens.contents(-1) == "<|endoftext|>"
    assert merges.contents(0) == "Ġ t"


def without_a_merge(tokenizer):
    ranks = dict(tokenizer.vocabulary.ranks)
    ranks[b"never merged"] = 5000
    return Tokenizer.from_ranks(ranks, "gpt2", {"<|endoftext|>": 5001})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tokenizer: Tokenizer.bytes(), "no merges"),
        (lambda tokenizer: Tokenizer.train([TEXT], 300, pattern="gpt4"), "by the pattern gpt4"),
        (without_a_merge, "tokens that no merge makes"),
        (lambda tokenizer: Tokenizer.train([TEXT], 300, special_tokens=["a"]), "spelled like another token"),
    ],
)
def test_a_tokenizer_that_gguf_cannot_hold_is_refused_by_name(tokenizer, tmp_path, change, says):
    other = change(tokenizer)
    with pytest.raises(ModelError, match=says) as caught:
        write(tmp_path / "model.gguf", network_for(other), other, "fp32")
    assert other.name in str(caught.value)
    assert not (tmp_path / "model.gguf").exists()


def test_a_tokenizer_of_another_make_is_refused_by_name(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<|endoftext|>": 1}, unk_token="a"))
    words.add_special_tokens(["<|endoftext|>"])
    words.save(str(tmp_path / "tokenizer.json"))
    other = Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="no byte-level BPE"):
        write(tmp_path / "model.gguf", network_for(other), other, "fp32")


class OwnGPT(GPT):
    layout = OwnLayout()


def test_a_network_that_gguf_cannot_compute_is_refused_by_name(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "own", NetworkKind(OwnGPT, config=GPTConfig))
    config = network_for(tokenizer).config
    with pytest.raises(ModelError, match="GGUF has no network OwnGPT"):
        write(tmp_path / "model.gguf", OwnGPT(config), tokenizer, "fp32")
    exact = network_for(tokenizer, options=GPTOptions(gelu="exact"))
    with pytest.raises(ModelError, match="tanh form of GELU"):
        write(tmp_path / "model.gguf", exact, tokenizer, "fp32")
    with pytest.raises(ModelError, match="has 50257 ids and the model"):
        write(tmp_path / "model.gguf", network_for(tokenizer), Tokenizer.gpt2(), "fp32")
    large = network_for(tokenizer)
    with torch.no_grad():
        large.h[1].mlp.c_fc.weight[0, 0] = 70_000
    with pytest.raises(ModelError, match="give --dtype bf16 or fp32"):
        write(tmp_path / "model.gguf", large, tokenizer, "fp16")
    assert list(tmp_path.iterdir()) == []
