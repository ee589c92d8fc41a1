"""A folder that transformers loads directly."""

from pathlib import Path

from myna.errors import ModelError
from myna.model.exchange import DtypeName
from myna.model.network import Network
from myna.model.weights import save_network
from myna.text.tokenizer import Tokenizer


def write(place: Path, network: Network, tokenizer: Tokenizer, dtype: DtypeName) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files into a folder; weights are fp32.

    Raises:
        ModelError: transformers does not have the network, or the tokenizer is not the model's.
    """
    if why := network.layout.own_because(network):
        raise ModelError(f"{why}, so it has no exporter; its checkpoints load with Myna only")
    save_network(place, network, tokenizer)
