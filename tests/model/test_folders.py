"""Hugging Face folders: each is read as transformers reads it, or refused by name.

parity/test_model_folders.py compares random ones with transformers itself.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.errors import CheckpointError, ModelError, MynaError
from myna.model.open import open_model
from myna.text import exchange

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=257)
IDS = torch.tensor([[1, 2, 3, 256]])


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    GPT(CONFIG).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def tensors_of(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def save(folder, tensors, name="model.safetensors"):
    safetensors.torch.save_file({n: t.clone().contiguous() for n, t in tensors.items()}, folder / name)


def configure(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def refusal(folder) -> str:
    """The one line with which a folder is refused, through Python and through a command."""
    with pytest.raises(MynaError) as caught:
        GPT.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_model_is_in_evaluation_mode_as_transformers_gives_it(folder):
    configure(folder, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    model = GPT.from_pretrained(folder)
    assert not any(module.training for module in model.modules())
    assert model.config.dropout == 0.5
    torch.testing.assert_close(model(IDS), model(IDS), atol=0, rtol=0)


@pytest.mark.parametrize("value", [3.9, "2", 2.0, True, None, [2], math.inf, -1, 10**400])
@pytest.mark.parametrize("key", ["n_layer", "vocab_size"])
def test_a_size_that_is_no_whole_number_is_refused(folder, key, value):
    configure(folder, **{key: value})
    assert f"config.json: model shape: {key} is" in refusal(folder)


def test_a_number_too_large_for_a_float_and_nested_brackets_are_a_line(folder, capsys):
    text = (folder / "config.json").read_text()
    for changed, says in (
        (text.replace('"n_layer": 2', '"n_layer": 1e999'), "n_layer is inf"),
        ("[" * 200_000, "brackets are nested too deeply"),
        ('{"a":' * 200_000, "brackets are nested too deeply"),
        ("[]", "holds no JSON object"),
        ("", "is not JSON"),
    ):
        (folder / "config.json").write_text(changed)
        assert says in refusal(folder)
        assert main(["sample", str(folder), "--prompt", "x", "--tokenizer", "bytes"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("quantization_config", {}),
        ("per_layer_config", {"0": {"n_inner": 16}}),
        ("transformers_weights", "other.safetensors"),
        ("is_causal", False),
        ("is_causal", None),
        ("sliding_window", 4),
        ("scale_attn_weights", 1),
        ("activation_function", "gelu_fast"),
        ("hidden_size", 32),
        ("num_hidden_layers", 2.0),
        ("n_inner", 64.0),
        ("dtype", "float8_e4m3fn"),
        ("torch_dtype", ["float32"]),
    ],
)
def test_a_key_that_changes_what_is_computed_is_refused_by_name(folder, key, value):
    configure(folder, **{key: value})
    assert (key if "dtype" not in key else "dtype") in refusal(folder)


def test_dropouts_that_differ_are_refused_by_name(folder):
    configure(folder, attn_pdrop=0.1)
    assert "resid_pdrop is 0.0, embd_pdrop is 0.0, attn_pdrop is 0.1" in refusal(folder)


def test_our_own_function_under_its_other_name_is_read(folder):
    before = GPT.from_pretrained(folder)(IDS)
    configure(
        folder, activation_function="gelu_pytorch_tanh", n_inner=64, num_hidden_layers=2, an_unknown_key=1
    )
    assert torch.equal(before, GPT.from_pretrained(folder)(IDS))


@pytest.mark.parametrize("tie", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
def test_a_head_unlike_the_embedding_is_refused(folder, tie):
    tensors = tensors_of(folder)
    save(folder, tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1})
    configure(folder, **tie)
    assert "lm_head.weight" in refusal(folder) or "tie_word_embeddings" in refusal(folder)


def test_two_names_for_one_tensor_may_not_differ(folder):
    tensors, before = tensors_of(folder), GPT.from_pretrained(folder)(IDS)
    save(folder, tensors | {"ln_f.bias": tensors["transformer.ln_f.bias"]})
    assert torch.equal(before, GPT.from_pretrained(folder)(IDS))
    save(folder, tensors | {"ln_f.bias": tensors["transformer.ln_f.bias"] + 1})
    assert "'ln_f.bias' and 'transformer.ln_f.bias' stand for one tensor" in refusal(folder)


def test_a_padded_embedding_is_another_vocabulary(folder):
    tensors = tensors_of(folder)
    save(folder, tensors | {"transformer.wte.weight": torch.zeros(384, 16)})
    assert "(384, 16), and the config leads to (257, 16)" in refusal(folder)


@pytest.mark.parametrize(
    "kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.bool]
)
@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"])
def test_weights_that_are_no_plain_floats_are_refused_by_name(folder, kind, name):
    tensors = tensors_of(folder)
    save(folder, tensors | {name: tensors[name].to(kind)})
    assert f"{name!r} is {str(kind).removeprefix('torch.')}" in refusal(folder)


def test_weights_that_transformers_would_round_are_refused(folder):
    configure(folder, torch_dtype="bfloat16")
    assert "bfloat16, float32" in refusal(folder)
    configure(folder, torch_dtype=None)
    GPT.from_pretrained(folder)
    tensors = tensors_of(folder)
    save(folder, tensors | {"transformer.ln_f.bias": tensors["transformer.ln_f.bias"].half()})
    assert "float16, float32" in refusal(folder)


def in_two_files(folder) -> dict[str, str]:
    """The model in two files, and the index's map."""
    tensors = tensors_of(folder)
    names = sorted(tensors)
    for file, part in (("a.safetensors", names[:5]), ("b.safetensors", names[5:])):
        save(folder, {name: tensors[name] for name in part}, file)
    return {name: "a.safetensors" if name in names[:5] else "b.safetensors" for name in names}


def write_index(folder, weight_map):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_the_single_file_comes_before_an_index(folder):
    write_index(folder, in_two_files(folder))
    tensors = {name: tensor + 1 for name, tensor in tensors_of(folder).items()}
    save(folder, tensors)
    assert torch.equal(GPT.from_pretrained(folder).ln_f.bias, tensors["transformer.ln_f.bias"])


def test_an_index_that_leads_outside_the_folder_is_refused(folder):
    places = in_two_files(folder)
    (folder / "a.safetensors").rename(folder.parent / "a.safetensors")
    (folder / "model.safetensors").unlink()
    for outside in ("../a.safetensors", str(folder.parent / "a.safetensors"), "x/../../a.safetensors"):
        write_index(folder, {n: outside if f == "a.safetensors" else f for n, f in places.items()})
        assert f"weight_map names {outside!r}" in refusal(folder)


@pytest.mark.parametrize(
    "weight_map",
    [
        None,
        [],
        {},
        ["a.safetensors"],
        {"wte.weight": ["a.safetensors"]},
        {"x": 3},
        {"x": "a.bin"},
        {"x": "a\0.safetensors"},
    ],
)
def test_an_index_that_is_none_is_a_line(folder, weight_map):
    (folder / "model.safetensors").unlink()
    write_index(folder, weight_map)
    assert "weight_map" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text("[" * 200_000)
    assert "nested too deeply" in refusal(folder)


def test_a_tensor_in_two_files_may_not_differ(folder):
    places, tensors = in_two_files(folder), tensors_of(folder)
    (folder / "model.safetensors").unlink()
    write_index(folder, places)
    name = min(places)
    second = {n: tensors[n] for n, file in places.items() if file == "b.safetensors"}
    save(folder, second | {name: tensors[name]}, "b.safetensors")
    GPT.from_pretrained(folder)
    save(folder, second | {name: tensors[name] + 1}, "b.safetensors")
    assert f"{name!r} stands in two files" in refusal(folder)


def test_an_adapter_beside_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter" in refusal(folder)


def test_a_type_of_number_that_torch_lacks_is_a_line(folder):
    header = json.dumps({"wte.weight": {"dtype": "F3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "model.safetensors").write_bytes(np.uint64(len(header)).tobytes() + header + b"\0")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("source", [None, 3, ["a"], b"model"])
def test_what_is_no_name_of_a_model_is_refused(source):
    with pytest.raises(ModelError, match="named by a path or a name"):
        GPT.from_pretrained(source)


@pytest.fixture(scope="module")
def gpt2_sized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized") / "model"
    GPT(GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=12, vocab_size=50257)).save_pretrained(folder)
    return folder


def in_place_of(folder, names):
    """Each name with what it has: a text, or a Path for a link to it."""
    for name, content in names.items():
        (folder / name).unlink(missing_ok=True)
        if isinstance(content, str):
            (folder / name).write_text(content)
        else:
            (folder / name).symlink_to(content)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"tokenizer.json": Path("gone")}, "tokenizer.json is a link to gone, which is not there"),
        ({"tokenizer.json": Path("tokenizer.json")}, "Too many levels of symbolic links"),
        ({"tokenizer.model": ""}, "tokenizer.model"),
        ({"tokenizer.model": Path("gone")}, "tokenizer.model is a link to gone, which is not there"),
        ({"x.tiktoken": Path("gone")}, "x.tiktoken"),
        ({"added_tokens.json": "{}"}, "there is only added_tokens.json"),
        ({"special_tokens_map.json": "{}"}, "there is only special_tokens_map.json"),
        ({"tokenizer_config.json": '{"tokenizer_class": "Qwen2Tokenizer"}'}, "only tokenizer_config.json"),
        ({"tokenizer_config.json": Path("gone")}, "there is only tokenizer_config.json"),
        ({"merges.txt": ""}, "there is only merges.txt"),
        (
            {"vocab.bpe": "", "encoder.json": Path("gone")},
            "encoder.json is a link to gone, which is not there",
        ),
    ],
)
def test_gpt2s_own_tokenizer_is_only_for_a_folder_with_the_weights_alone(gpt2_sized, names, says, capsys):
    assert open_model(gpt2_sized).tokenizer == Tokenizer.gpt2()
    in_place_of(gpt2_sized, names)
    try:
        assert main(["sample", str(gpt2_sized), "--prompt", "x", "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert open_model(gpt2_sized).tokenizer_or("gpt2") == Tokenizer.gpt2()  # the way out
    finally:
        for name in names:
            (gpt2_sized / name).unlink()
    assert said.count("\n") == 1
    assert says in said
    assert str(gpt2_sized) in said


def test_a_pair_of_files_beside_the_weights_is_read(gpt2_sized):
    exchange.save_gpt2_files(Tokenizer.train(["a test of a test"] * 3, 258).vocabulary, gpt2_sized)
    try:
        assert open_model(gpt2_sized).tokenizer.n_vocab == 258
    finally:
        for name in exchange.PAIRS[0]:
            (gpt2_sized / name).unlink()
