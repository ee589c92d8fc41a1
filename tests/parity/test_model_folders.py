"""Any Hugging Face folder: what transformers computes with it, or a refusal in one line.

Hypothesis edits a sound folder: the fields of config.json, the tensors' names, values, shapes and types, and the files
that they lie in. The oracle is transformers 5 (version 4 ties heads that 5 does not).
"""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna import GPT
from myna.errors import MynaError

transformers = pytest.importorskip("transformers", minversion="5")

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 8, "vocab_size": 11}
IDS = torch.tensor([[1, 2, 3, 10, 0, 5, 7, 9]])
ABSENT = object()  # the key is taken out
FLAGS = [True, False, 1, 0, None, "true"]
DROPOUTS = [0.0, 0.1, 0.5, 0, 1, None, "0.1", float("nan")]
WHOLE = [2, 2.0, 3.9, "2", True, None, [2], 0, -2, float("inf"), 10**30]
TYPES = ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "int8", "nonsense", None, 3]

# Each key of config.json that transformers' GPT-2 looks at, and others that stand in files: the values tried.
FIELDS = {
    "n_layer": [*WHOLE, 1, 3],
    "n_head": [*WHOLE, 1, 4, 3, 16],
    "n_embd": [*WHOLE, 16, 8.0],
    "n_positions": [*WHOLE, 4, 16],
    "vocab_size": [*WHOLE, 10, 12, 128],
    "num_hidden_layers": [2, 1, 2.0, None],
    "num_attention_heads": [2, 4, "2"],
    "hidden_size": [8, 16],
    "max_position_embeddings": [8, 4],
    "n_ctx": [8, 4],
    "n_inner": [None, 32, 16, 32.0, "32"],
    "activation_function": ["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "gelu_fast", None, 3],
    "layer_norm_epsilon": [1e-5, 1e-6, 1, "1e-5", None],
    "resid_pdrop": DROPOUTS,
    "embd_pdrop": DROPOUTS,
    "attn_pdrop": DROPOUTS,
    "scale_attn_weights": FLAGS,
    "tie_word_embeddings": FLAGS,
    "scale_attn_by_inverse_layer_idx": FLAGS,
    "add_cross_attention": FLAGS,
    "is_encoder_decoder": FLAGS,
    "is_causal": FLAGS,
    "chunk_size_feed_forward": [0, 2],
    "quantization_config": [None, {}, {"quant_method": "bitsandbytes", "load_in_8bit": True}],
    "per_layer_config": [None, {}, {"0": {"n_inner": 16}}],
    "fusion_config": [None, {}, {"patch_embeddings": True}],
    "transformers_weights": [None, "other.safetensors", "model.safetensors"],
    "attribute_map": [{"n_layer": "n_head"}],
    "sliding_window": [None, 2],
    "attention_chunk_size": [None, 2],
    "layer_types": [None, ["sliding_attention", "full_attention"]],
    "text_config": [None, {"n_layer": 1}],
    "decoder": [None, {"n_layer": 1}],
    "dtype": TYPES,
    "torch_dtype": TYPES,
    "model_type": ["gpt2", "llama", "myna-gpt2", None, 3],
    # Nothing in the logits depends on these.
    "reorder_and_upcast_attn": [True, False],
    "attn_implementation": ["eager", "sdpa"],
    "_attn_implementation": ["eager", "sdpa"],
    "use_cache": [True, False],
    "return_dict": [True],  # without it transformers' GPT-2 cannot compute at all
    "output_attentions": [True, False],
    "output_hidden_states": [True, False],
    "initializer_range": [0.5],
    "summary_type": ["mean"],
    "architectures": [["GPT2Model"], ["LlamaForCausalLM"], None],
    "bos_token_id": [None, 3, 50256],
    "task_specific_params": [{"text-generation": {"do_sample": True}}],
    "an_unknown_key": [None, 3, "x", {"n_layer": 1}],
}


def base_weights() -> dict[str, torch.Tensor]:
    """transformers' own names and shapes, numbers large enough that a mistake shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES))
        return {
            name: torch.randn_like(tensor) * 0.5
            for name, tensor in model.state_dict().items()
            if name != "lm_head.weight"
        }


BASE = base_weights()
CONFIG = SIZES | {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@st.composite
def configs(draw: st.DrawFn) -> dict:
    config = dict(CONFIG)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        key = draw(st.sampled_from(sorted(FIELDS)))
        value = draw(st.sampled_from([*FIELDS[key], ABSENT]))
        if value is ABSENT:
            config.pop(key, None)
        else:
            config[key] = value
    if draw(st.integers(0, 9)) == 0:
        config.update(
            dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), draw(st.sampled_from(DROPOUTS)))
        )
    return config


def other_name(name: str) -> str:
    return name.removeprefix("transformer.") if name.startswith("transformer.") else f"transformer.{name}"


@st.composite
def weights(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    tensors = dict(BASE)
    if draw(st.booleans()):  # as on the hub
        tensors = {other_name(name): tensor for name, tensor in tensors.items()}
    if draw(st.booleans()):
        kind = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]))
        tensors = {name: tensor.to(kind) for name, tensor in tensors.items()}
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors[name]
        embedding = next(t for n, t in tensors.items() if n.endswith(("wte.weight", name)))
        match draw(
            st.sampled_from(["drop", "twice", "differ", "rename", "head", "buffer", "shape", "type", "pad"])
        ):
            case "drop":
                del tensors[name]
            case "twice":
                tensors[other_name(name)] = tensor.clone()
            case "differ":
                tensors[other_name(name)] = (tensor.float() + 1).to(tensor.dtype)
            case "rename":
                prefix = draw(st.sampled_from(["transformer.", "model.", "transformer.transformer."]))
                tensors[prefix + name] = tensors.pop(name)
            case "head":
                head = draw(st.sampled_from(["lm_head.weight", "transformer.lm_head.weight", "lm_head.bias"]))
                change = draw(st.sampled_from([0.0, 0.0, 1.0, 1e-3, float("nan")]))
                tensors[head] = (embedding.float() + change).to(embedding.dtype)
            case "buffer":
                buffer = draw(st.sampled_from(["attn.bias", "attn.masked_bias"]))
                layer = draw(st.sampled_from([0, 1, 7]))
                prefix = draw(st.sampled_from(["", "transformer."]))
                tensors[f"{prefix}h.{layer}.{buffer}"] = torch.zeros(1, 1, 8, 8)
            case "shape":
                tensors[name] = torch.cat([tensor.float(), tensor.float()]).to(tensor.dtype)
            case "type":
                kind = draw(st.sampled_from([torch.float16, torch.float64, torch.int64, torch.float8_e5m2]))
                tensors[name] = tensor.to(kind)
            case "pad":  # the vocabulary, as it is in memory
                for key in [key for key in tensors if key.endswith("wte.weight")]:
                    tensors[key] = torch.zeros(128, 8)
    return tensors


def write_index(draw: st.DrawFn, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Two files and their index, perhaps with a fault."""
    names = sorted(tensors)
    half = draw(st.integers(0, len(names)))
    parts = [{name: tensors[name].clone() for name in part} for part in (names[:half], names[half:])]
    files = ["a.safetensors", "b.safetensors"]
    places = {name: files[number] for number, part in enumerate(parts) for name in part}
    fault = draw(
        st.sampled_from(["", "", "twice", "differ", "swapped", "absent", "outside", "list", "kind", "other"])
    )
    if names[:half] and fault in ("twice", "differ"):
        first = names[0]
        parts[1][first] = (tensors[first].float() + (fault == "differ")).to(tensors[first].dtype)
    if fault == "swapped":
        places = {name: files[1 - files.index(file)] for name, file in places.items()}
    if fault == "absent":
        places["transformer.wte.weight"] = "c.safetensors"
    if fault == "outside":
        safetensors.torch.save_file(parts[0], folder.parent / "outside.safetensors")
        outside = draw(
            st.sampled_from(["../outside.safetensors", str(folder.parent / "outside.safetensors")])
        )
        places |= dict.fromkeys(names[:half] or names, outside)
    index = {"metadata": {}, "weight_map": places}
    if fault == "list":
        index["weight_map"] = draw(
            st.sampled_from([[], ["a.safetensors"], {names[0] if names else "x": ["a"]}, None])
        )
    if fault == "kind":
        index["weight_map"] = dict.fromkeys(names, "a.bin")
    for file, part in zip(files, parts, strict=True):
        safetensors.torch.save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps([index] if fault == "other" else index))


@st.composite
def folders(draw: st.DrawFn) -> Path:
    """A folder in a folder of its own, which whoever draws it removes."""
    folder = Path(tempfile.mkdtemp()) / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(draw(configs())))
    tensors = draw(weights()) if draw(st.booleans()) else dict(BASE)
    lies = draw(st.sampled_from(["single", "single", "index", "both", "neither"]))
    if lies in ("index", "both"):
        write_index(draw, tensors, folder)
    if lies in ("single", "both"):
        if lies == "both":
            tensors = {name: (tensor.float() * 2).to(tensor.dtype) for name, tensor in tensors.items()}
        safetensors.torch.save_file({n: t.clone() for n, t in tensors.items()}, folder / "model.safetensors")
    return folder


def theirs(folder: Path) -> "transformers.GPT2LMHeadModel":
    """What transformers reads, with its own choice of a type; computed in fp32, as we do."""
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.GPT2LMHeadModel.from_pretrained(folder).float().eval()


def compare(folder: Path, tally: dict[str, int]) -> None:
    ours: GPT | None = None
    line = ""
    try:
        ours = GPT.from_pretrained(folder)
    except MynaError as error:
        line = str(error)
    if ours is None:
        assert 0 < len(line) < 600
        assert "\n" not in line
        tally["refused"] += 1
        return
    model = theirs(folder)
    ids = IDS[:, : ours.config.block_size]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), model(ids)[0], atol=1e-4, rtol=0, equal_nan=True)
    for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        assert getattr(model.config, key) == ours.config.dropout
    tally["equal"] += 1


def run(cases: int) -> None:
    tally = {"refused": 0, "equal": 0}

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(folders())
    def test(folder: Path) -> None:
        try:
            compare(folder, tally)
        finally:
            shutil.rmtree(folder.parent)

    test()
    assert tally["equal"] > cases / 10, tally
    assert tally["refused"] > cases / 10, tally


def test_a_folder_is_read_as_transformers_reads_it_or_refused():
    run(120)


@pytest.mark.slow
def test_three_thousand_folders():
    run(3000)
