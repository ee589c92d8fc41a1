import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import CheckpointError, DownloadError, ModelError

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=257)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    model = GPT(CONFIG)
    model.save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return model, tmp_path / "model"


def assert_same(a, b):
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name


def edit(path, change):
    arrays = safetensors.numpy.load_file(path / "model.safetensors")
    safetensors.numpy.save_file(change(arrays), path / "model.safetensors")


def test_saved_and_loaded_is_the_same_model(saved):
    model, path = saved
    loaded = GPT.from_pretrained(path)
    assert loaded.config == CONFIG
    assert_same(model, loaded)
    assert {p.name for p in path.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_saved_over_an_existing_folder(saved):
    _, path = saved
    other = GPT(CONFIG)
    other.save_pretrained(path)
    assert_same(other, GPT.from_pretrained(path))


def test_the_file_has_no_padding_and_hugging_faces_layout(saved):
    model, path = saved
    arrays = safetensors.numpy.load_file(path / "model.safetensors")
    assert arrays["transformer.wte.weight"].shape == (257, 16)
    assert arrays["transformer.h.0.mlp.c_fc.weight"].shape == (16, 64)  # Conv1D: (in, out)
    np.testing.assert_array_equal(
        arrays["transformer.h.0.mlp.c_fc.weight"].T, model.h[0].mlp.c_fc.weight.detach()
    )


def test_a_file_of_the_hubs_shape(saved):
    """No prefix, causal masks as buffers, and an untied name for the tied head."""
    model, path = saved

    def as_on_the_hub(arrays):
        result = {name.removeprefix("transformer."): array for name, array in arrays.items()}
        for layer in range(2):
            result[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 12, 12), dtype=np.float32))
            result[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, dtype=np.float32)
        result["lm_head.weight"] = result["wte.weight"]
        return result

    edit(path, as_on_the_hub)
    assert_same(model, GPT.from_pretrained(path))


def test_half_precision_files_are_widened(saved):
    model, path = saved
    edit(path, lambda arrays: {name: array.astype(np.float16) for name, array in arrays.items()})
    loaded = GPT.from_pretrained(path)
    assert loaded.wte.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.wte.weight, model.wte.weight, atol=1e-3, rtol=1e-3)


def test_a_model_in_several_files(saved):
    model, path = saved
    arrays = safetensors.numpy.load_file(path / "model.safetensors")
    names = sorted(arrays)
    (path / "model.safetensors").unlink()
    for number, part in enumerate((names[:5], names[5:])):
        safetensors.numpy.save_file({n: arrays[n] for n in part}, path / f"part{number}.safetensors")
    index = {"weight_map": {n: f"part{int(n in names[5:])}.safetensors" for n in names}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(model, GPT.from_pretrained(path))


def test_a_missing_tensor_is_named(saved):
    _, path = saved
    edit(path, lambda arrays: {n: a for n, a in arrays.items() if "ln_f.bias" not in n})
    with pytest.raises(ModelError, match=r"ln_f\.bias"):
        GPT.from_pretrained(path)


def test_a_foreign_tensor_is_named(saved):
    _, path = saved
    edit(path, lambda arrays: arrays | {"model.layers.0.q_proj.weight": np.zeros(1, dtype=np.float32)})
    with pytest.raises(ModelError, match="q_proj"):
        GPT.from_pretrained(path)


def test_a_wrong_shape_is_named(saved):
    _, path = saved
    edit(path, lambda arrays: arrays | {"transformer.wpe.weight": np.zeros((13, 16), dtype=np.float32)})
    with pytest.raises(ModelError, match="wpe"):
        GPT.from_pretrained(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llama"),
        ("model_type", "myna-unheard-of"),
        ("activation_function", "relu"),
        ("layer_norm_epsilon", 1e-6),
        ("n_inner", 7),
        ("n_layer", None),
    ],
)
def test_a_config_of_another_network_is_refused_by_key(saved, key, value):
    _, path = saved
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {key: value}))
    wanted = f"no network '{value.removeprefix('myna-')}'" if str(value).startswith("myna-") else key
    with pytest.raises(ModelError, match=wanted) as caught:
        GPT.from_pretrained(path)
    assert str(path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused(saved):
    _, path = saved
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        GPT.from_pretrained(path)


def test_a_pickle_is_never_read(saved):
    _, path = saved
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        GPT.from_pretrained(path)


def test_a_pickle_named_as_safetensors_is_refused(saved, tmp_path):
    import pickle

    class Canary:
        def __reduce__(self):
            return open, (str(tmp_path / "sung"), "w")

    _, path = saved
    (path / "model.safetensors").write_bytes(pickle.dumps(Canary()))
    with pytest.raises(CheckpointError):
        GPT.from_pretrained(path)
    assert not (tmp_path / "sung").exists()


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    with pytest.raises(ModelError, match="50257"):
        GPT(CONFIG).save_pretrained(tmp_path, Tokenizer.gpt2())


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        GPT.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no model"):
        GPT.from_pretrained(tmp_path / "absent" / "deeper")
    with pytest.raises(DownloadError, match="not-a-model"):
        GPT.from_pretrained("not-a-model")


@pytest.mark.parametrize("what", ["cut", "empty", "folder"])
def test_weights_that_are_no_safetensors_file_say_what_to_do(saved, what):
    path = saved[1] / "model.safetensors"
    data = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    else:
        path.write_bytes(data[:-9] if what == "cut" else b"")
    with pytest.raises(CheckpointError) as refused:
        GPT.from_pretrained(saved[1])
    said = str(refused.value)
    assert f"{path} is" in said
    assert "not a whole safetensors file" in said
    assert "; put the model's file" in said if what == "folder" else "; copy or download it again" in said
    assert "\n" not in said


def test_a_name_that_the_hub_does_not_give_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match=r"; check the name and the network, or give the folder of a model$"
    ):
        GPT.from_pretrained("nobody/nothing")


@pytest.mark.parametrize(
    ("stated", "says"), [("llama", "model_type is 'llama'"), (None, "it has no model_type")]
)
def test_a_model_of_another_type_says_what_to_give(saved, stated, says):
    place = saved[1] / "config.json"
    place.write_text(json.dumps(json.loads(place.read_bytes()) | {"model_type": stated}))
    with pytest.raises(ModelError, match=f"{says}; give a model of a type that Myna can load: gpt2"):
        GPT.from_pretrained(saved[1])
