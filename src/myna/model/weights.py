"""Names and layouts: Hugging Face's GPT-2 files and ours.

Theirs differs in three things. Names begin with `transformer.` (in files that transformers writes; the hub's own
`gpt2` has no prefix, and carries the causal masks as `h.N.attn.bias` buffers). The four matrices of a block are
stored (in, out), as OpenAI's Conv1D had them; nn.Linear wants (out, in). And the vocabulary is not padded.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from myna.errors import CheckpointError, DownloadError, ModelError, first_line
from myna.model.config import GPTConfig, parameter_shapes

PREFIX = "transformer."
_CONV1D = re.compile(r"\.(c_attn|c_fc|c_proj)\.weight$")
_MASK_BUFFER = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$")


def to_hugging_face(state: Mapping[str, Tensor], config: GPTConfig) -> dict[str, np.ndarray]:
    """Our tensors (weights, or anything shaped like them) under Hugging Face's names and in its layout, fp32."""
    result = {}
    for name, tensor in state.items():
        array = tensor.detach().to("cpu", torch.float32).numpy()
        if _CONV1D.search(name):
            array = array.T
        if name == "wte.weight":
            array = array[: config.vocab_size]
        result[PREFIX + name] = array
    return result


def from_hugging_face(arrays: Mapping[str, np.ndarray], config: GPTConfig, where: str) -> dict[str, Tensor]:
    """The inverse: our names, our layout, the vocabulary padded with zero rows.

    Raises:
        ModelError: a tensor is missing, has another shape than the config says, or is not part of GPT-2.
    """
    expected = parameter_shapes(config)
    state: dict[str, Tensor] = {}
    for full_name, array in arrays.items():
        name = full_name.removeprefix(PREFIX)
        if _MASK_BUFFER.match(name) or name == "lm_head.weight":  # the head is the token embedding (tied)
            continue
        if name not in expected:
            raise ModelError(f"{where}: tensor {full_name!r} is not part of GPT-2; is this another model?")
        if _CONV1D.search(name):
            array = array.T
        tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))  # our own copy, aligned
        if name == "wte.weight" and tuple(tensor.shape) == (config.vocab_size, config.n_embd):
            padding = torch.zeros(config.padded_vocab_size - config.vocab_size, config.n_embd)
            tensor = torch.cat([tensor, padding])
        if tuple(tensor.shape) != expected[name]:
            raise ModelError(
                f"{where}: tensor {full_name!r} has shape {array.shape}, which config.json does not lead to"
            )
        state[name] = tensor
    if missing := expected.keys() - state.keys():
        raise ModelError(
            f"{where}: {len(missing)} tensors are missing, {min(missing)!r} among them; is the file whole?"
        )
    return state


def hugging_face_config(config: GPTConfig, eot: int | None) -> dict[str, Any]:
    """`config.json` as transformers writes it for GPT-2."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None,
        "activation_function": "gelu_new",
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "torch_dtype": "float32",
    }


def read_config(path: Path) -> GPTConfig:
    """A GPT-2 `config.json`, refused by name where it asks for what this network does not do.

    Raises:
        ModelError: not a GPT-2 config, or a variant of it that is computed differently.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"no config.json in {path.parent}; give a run, a checkpoint or a Hugging Face GPT-2 folder"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("model_type") != "gpt2":
        kind = raw.get("model_type") if isinstance(raw, dict) else type(raw).__name__
        raise ModelError(f"{path}: model_type is {kind!r}; only 'gpt2' models can be loaded")
    usual = {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for key, value in usual.items():
        if raw.get(key, value) != value:
            raise ModelError(f"{path}: {key} is {raw[key]!r}; this network computes GPT-2 with {value!r}")
    try:
        config = GPTConfig(
            n_layer=int(raw["n_layer"]),
            n_head=int(raw["n_head"]),
            n_embd=int(raw["n_embd"]),
            block_size=int(raw["n_positions"]),
            vocab_size=int(raw["vocab_size"]),
            dropout=float(raw.get("resid_pdrop", 0.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error} is missing or not a number") from error
    if raw.get("n_inner") not in (None, 4 * config.n_embd):
        raise ModelError(f"{path}: n_inner is {raw['n_inner']}; this network's MLP is 4 * n_embd wide")
    return config


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file, bf16 and fp16 widened to fp32.

    Raises:
        CheckpointError: missing, or not such a file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; is the folder whole?") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def _widened(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def load_pretrained(source: str | Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Config and weights (fp32, our layout) from a directory or a hub name.

    Raises:
        ModelError, CheckpointError, DownloadError
    """
    directory = pretrained_directory(source)
    config = read_config(directory / "config.json")
    index = directory / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{index} is not an index of safetensors files: {error!r}") from error
    else:
        names = ["model.safetensors"]
        if not (directory / names[0]).exists() and (directory / "pytorch_model.bin").exists():
            raise CheckpointError(
                f"{directory} holds pytorch_model.bin, a pickle, which can run code and is never read; "
                "save the model as safetensors with transformers' save_pretrained"
            )
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        arrays |= read_safetensors(directory / name)
    return config, from_hugging_face(arrays, config, str(directory))


def pretrained_directory(source: str | Path) -> Path:
    """The directory itself, or the hub's files of that name in the local cache, downloaded when absent.

    Raises:
        ModelError: neither a directory nor a possible name. DownloadError: the hub did not give it.
    """
    directory = Path(source)
    if directory.is_dir():
        return directory
    if directory.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
        raise ModelError(
            f"{source} is no model: give a run, a checkpoint, a Hugging Face GPT-2 folder, or a hub name"
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError(
            f"there is no folder {source}; to load it from the hub, pip install 'myna[hub]'"
        ) from error
    wanted = [
        "config.json",
        "*.safetensors",
        "model.safetensors.index.json",
        "tokenizer*.json",
        "vocab.json",
        "merges.txt",
    ]
    try:
        return Path(huggingface_hub.snapshot_download(str(source), allow_patterns=wanted))
    except Exception as error:  # the hub's client raises its HTTP library's errors as well as its own
        raise DownloadError(
            f"there is no folder {source}, and the hub did not give a model of that name: {first_line(error)}"
        ) from error


def generation_config(eot: int | None) -> dict[str, Any]:
    """`generation_config.json`: where a text begins and ends."""
    return {"bos_token_id": eot, "eos_token_id": eot, "pad_token_id": eot}
