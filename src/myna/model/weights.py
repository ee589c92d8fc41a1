"""A network's folder: config.json, weights as safetensors, and what stands beside them; read and written."""

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from myna.errors import CheckpointError, DownloadError, ModelError, OutputError, first_line
from myna.files import ensure_writable_directory, json_bytes, reading, write_atomic, write_safetensors
from myna.model.config import NetworkConfig
from myna.model.layout import OWN_PREFIX
from myna.model.network import NETWORKS, Network, NetworkKind
from myna.parsing import read_object
from myna.paths import is_unicode
from myna.signals import answering
from myna.text.chat import can_chat, stop_ids
from myna.text.exchange import NAMES
from myna.text.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What is fetched of a folder on the hub, or on another store.
MODEL_FILES = [CONFIG, "*.safetensors", INDEX, "tokenizer*.json", *NAMES]
# Types that weights may have; narrow ones are widened to fp32, which loses nothing.
WIDE, NARROW = ("float32", "float64"), ("float16", "bfloat16")


def load_network(directory: Path) -> Network:
    """The network of a folder, fp32 on the CPU.

    Raises:
        ModelError, CheckpointError: what is missing or wrong, and where.
    """
    raw, name, config = _read_shape(directory)
    network = build_without_memory(NETWORKS[name], config)
    tensors = _read_tensors(directory)
    _check_types(tensors, raw, network, directory)
    arrays = {name: _widened(tensor) for name, tensor in tensors.items()}
    network.load_state_dict(network.layout.from_file(network, arrays, str(directory)), assign=True)
    return network


def read_shape(directory: Path) -> tuple[str, NetworkConfig]:
    """The network of a folder by its name in NETWORKS, and its shape. The weights are not read.

    Raises:
        ModelError: what is missing or wrong, and where.
    """
    return _read_shape(directory)[1:]


def _read_shape(directory: Path) -> tuple[dict[str, Any], str, NetworkConfig]:
    raw, where = _read_config(directory / CONFIG), str(directory / CONFIG)
    name = name_of(raw, where)
    kind = NETWORKS[name]
    return raw, name, kind.load().layout.read_config(raw, kind, where)


def build_without_memory(kind: NetworkKind, config: Any) -> Any:
    """A network of that shape whose parameters have shapes alone; for counting, or to be given weights.

    Raises:
        ModelError: numbers so large that even the shapes cannot be.
    """
    try:
        with torch.device("meta"):
            return kind.load()(config)
    except RuntimeError as error:
        raise ModelError(
            f"no network of this shape can be built: {first_line(error)}; give smaller sizes"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    missing = f"no config.json in {path.parent}; give a run, a checkpoint or a Hugging Face GPT-2 folder"
    return read_object(path, ModelError, "is this the config.json of a model?", missing=missing)


def name_of(raw: Mapping[str, Any], where: str) -> str:
    """The name in NETWORKS of the network that a config.json is about.

    Raises:
        ModelError: none of those we have.
    """
    model_type = raw.get("model_type")
    for name, kind in NETWORKS.items():
        if model_type in (kind.model_type, OWN_PREFIX + name) and model_type is not None:
            return name
    known = [kind.model_type for kind in NETWORKS.values() if kind.model_type]
    known += [OWN_PREFIX + name for name, kind in NETWORKS.items() if not kind.model_type]
    if isinstance(model_type, str) and model_type.startswith(OWN_PREFIX):
        name = model_type.removeprefix(OWN_PREFIX)
        raise ModelError(
            f"{where}: this Myna has no network {name!r} (it has {', '.join(NETWORKS)}); use the Myna that wrote the "
            "file, or add the network to NETWORKS"
        )
    said = "it has no model_type" if model_type is None else f"model_type is {reprlib.repr(model_type)}"
    raise ModelError(f"{where}: {said}; give a model of a type that Myna can load: {', '.join(known)}")


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from the files that transformers reads.

    Raises:
        CheckpointError: a file is missing or damaged, or two files disagree.
    """
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(directory):
        for name, tensor in _open_safetensors(directory / file).items():
            if name in tensors and not torch.equal(tensors[name], tensor):
                raise CheckpointError(
                    f"{directory}: tensor {name!r} stands in two files and differs; remove one of them from {INDEX}"
                )
            tensors[name] = tensor
    return tensors


def _weight_files(directory: Path) -> list[str]:
    """The single file where there is one, else those of the index: the order of transformers."""
    if (directory / "adapter_config.json").is_file():
        raise ModelError(
            f"{directory} holds an adapter (adapter_config.json), which changes what the model computes; merge the "
            "adapter into the weights and save the model again"
        )
    index = directory / INDEX
    if (directory / WEIGHTS).is_file() or not index.is_file():
        if not (directory / WEIGHTS).exists() and (directory / "pytorch_model.bin").exists():
            raise CheckpointError(
                f"{directory} holds pytorch_model.bin, a pickle, which can run code and is never read; "
                "save the model as safetensors with transformers' save_pretrained"
            )
        return [WEIGHTS]
    weight_map = read_object(index, CheckpointError, "is the folder whole?").get("weight_map")
    files = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not files or not all(isinstance(file, str) for file in files):
        raise CheckpointError(
            f"{index}: weight_map does not give each tensor the name of its file; is this the index of a model?"
        )
    for file in files:
        path = PurePath(file)
        is_name = is_unicode(file) and "\0" not in file
        if path.is_absolute() or ".." in path.parts or not is_name or path.suffix != ".safetensors":
            raise CheckpointError(
                f"{index}: weight_map names {file!r}, which is no safetensors file inside the folder; put the file "
                "into the folder and name it there"
            )
    return sorted(set(files))


def _check_types(
    tensors: Mapping[str, Tensor], raw: Mapping[str, Any], network: Network, directory: Path
) -> None:
    """Refuses weights that are no plain numbers, and those that transformers would round to another type first.

    transformers reads all weights in the type that config.json states, else in that of the first of them.

    Raises:
        ModelError: names the tensor or the key.
    """
    known = ", ".join(WIDE + NARROW)
    stated = raw.get("dtype") if raw.get("dtype") is not None else raw.get("torch_dtype")
    if stated is not None and stated not in WIDE + NARROW:
        raise ModelError(f"{directory / CONFIG}: dtype is {reprlib.repr(stated)}; give one of {known}")
    own = tuple(name for name, _ in network.named_parameters())
    types = set() if stated is None else {stated}
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if not name.endswith(own) and not tensor.is_floating_point():
            continue
        if kind not in WIDE + NARROW:
            raise ModelError(
                f"{directory}: tensor {name!r} is {kind}; save the model without quantization, as one of {known}"
            )
        if name.endswith(own):
            types.add(kind)
    if stated not in WIDE and len(types) > 1 and types.intersection(NARROW):
        raise ModelError(
            f"{directory}: weights of {', '.join(sorted(types))} (config.json's dtype included), which transformers "
            "rounds to one of them; save the model with one type"
        )


def save_network(directory: Path, network: Network, tokenizer: Tokenizer | None) -> None:
    """See `Decoder.save_pretrained`."""
    layout = network.layout
    if tokenizer is not None and tokenizer.n_vocab != network.config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.n_vocab} ids and the model {network.config.vocab_size}; "
            "save the model with its own tokenizer"
        )
    layout.check(network)
    ensure_writable_directory(directory)
    weights, temporary = directory / WEIGHTS, directory / f".{WEIGHTS}.tmp"
    try:
        write_safetensors(temporary, layout.to_file(network, network.state_dict()))
        temporary.replace(weights)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {weights}: {error.strerror}; free some space") from error
    for name, content in config_files(network, tokenizer).items():
        write_atomic(directory / name, content)
    if tokenizer is not None:
        tokenizer.save(directory)


def config_files(network: Network, tokenizer: Tokenizer | None) -> dict[str, bytes]:
    """config.json and generation_config.json: the network, and where a text begins and ends.

    In a model that can chat, the end of a turn ends a text, too.
    """
    eot = None if tokenizer is None else tokenizer.eot
    end = eot if tokenizer is None or not can_chat(tokenizer) else sorted(stop_ids(tokenizer))
    ends = {"bos_token_id": eot, "eos_token_id": end, "pad_token_id": eot}
    return {
        CONFIG: json_bytes(network.layout.config_json(network, eot)),
        "generation_config.json": json_bytes(ends),
    }


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file, narrow floats widened to fp32.

    Raises:
        CheckpointError: missing, or not such a file. UnreadableError: it can't be read.
    """
    return {name: _widened(tensor) for name, tensor in _open_safetensors(path).items()}


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        # The library says of a file that it may not read that there is none.
        with reading(path), open(path, "rb"):
            pass
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; is the folder whole?") from error
    except IsADirectoryError as error:
        raise CheckpointError(
            f"{path} is a folder, not a whole safetensors file; put the model's file in its place"
        ) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({first_line(error)}); copy or download it again, or give "
            "another model"
        ) from error


def _widened(tensor: Tensor) -> np.ndarray:
    narrow = tensor.is_floating_point() and tensor.itemsize < 4
    return (tensor.float() if narrow else tensor).numpy()


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
    try:
        return Path(
            answering(lambda: huggingface_hub.snapshot_download(str(source), allow_patterns=MODEL_FILES))
        )
    except Exception as error:  # the hub's client raises its HTTP library's errors as well as its own
        raise DownloadError(
            f"there is no folder {source}, and the hub did not give a model of that name "
            f"({first_line(error).rstrip('.')}); "
            "check the name and the network, or give the folder of a model"
        ) from error
