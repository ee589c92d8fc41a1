"""What formats that hold GPT-2 alone ask of a network and its tokenizer."""

from collections.abc import Iterator

import numpy as np

from myna.errors import ModelError
from myna.model.layout import as_float32
from myna.model.network import Network
from myna.text.tokenizer import Tokenizer


def check_gpt2(network: Network, tokenizer: Tokenizer, format_name: str) -> None:
    """
    Raises:
        ModelError: the network does not compute GPT-2 as OpenAI released it, or the tokenizer is not the model's.
    """
    config = network.layout.config_json(network, None)
    if config.get("model_type") != "gpt2":
        raise ModelError(
            f"{format_name} has no network {type(network).__name__}; only GPT-2 can be exported to it"
        )
    network.layout.check(network)
    if config["activation_function"] != "gelu_new":
        raise ModelError(
            f"{format_name} computes GPT-2 with the tanh form of GELU, and this model was trained with the exact one; "
            "export it to hugging-face, which states the form"
        )
    if tokenizer.n_vocab != network.config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.n_vocab} ids and the model {network.config.vocab_size}; "
            "export the model with its own tokenizer"
        )


def named_arrays(network: Network) -> Iterator[tuple[str, np.ndarray]]:
    """The weights by our names, fp32, as nn.Linear keeps them, (out, in); the vocabulary is not padded."""
    for name, tensor in network.state_dict().items():
        yield name, as_float32(network.unpadded(name, tensor))
