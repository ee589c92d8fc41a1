"""llm.c's files: the weights after a header of 256 numbers, and the bytes of each token for printing.

Source: https://github.com/karpathy/llm.c: train_gpt2.py (write_model, write_tensors, write_tokenizer), train_gpt2.cu
(gpt2_build_from_checkpoint) and llmc/tokenizer.h.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from myna.errors import ModelError, TokenizerError
from myna.files import SyncedWriter
from myna.model.exchange import DtypeName
from myna.model.exchange.gpt2_alone import check_gpt2
from myna.model.network import Network
from myna.text.tokenizer import Tokenizer

FORMAT = "llm.c"
MODEL, TOKENIZER = "model.bin", "gpt2_tokenizer.bin"  # the second is the name that llm.c opens
MODEL_MAGIC, TOKENIZER_MAGIC = 20240326, 20240328
VERSIONS: dict[DtypeName, int] = {"fp32": 3, "bf16": 5}
TOKENIZER_VERSION = 2  # the first that names the end-of-text id
HEADER_NUMBERS = 256
MULTIPLE = 128  # what the rows of the embedding are padded to
MOST_BYTES = 255  # of a token: its length is one byte
# Each of a block's tensors stands in the file for all layers, before the next one.
OF_A_BLOCK = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def write(place: Path, network: Network, tokenizer: Tokenizer, dtype: DtypeName) -> None:
    """Writes model.bin and gpt2_tokenizer.bin into a folder.

    Raises:
        ModelError: the network is not GPT-2, or llm.c can't hold the tokenizer.
    """
    check_gpt2(network, tokenizer, FORMAT)
    tokens = _tokens(tokenizer)
    config = network.config
    rows = -(-config.vocab_size // MULTIPLE) * MULTIPLE
    shape = (config.block_size, config.vocab_size, config.n_layer, config.n_head, config.n_embd, rows)
    with SyncedWriter(place / MODEL) as file:
        file.write(_header(MODEL_MAGIC, VERSIONS[dtype], *shape))
        for tensor in _in_order(network, rows):
            file.write(_raw(tensor, dtype))
    with SyncedWriter(place / TOKENIZER) as file:
        file.write(_header(TOKENIZER_MAGIC, TOKENIZER_VERSION, len(tokens), tokenizer.eot))
        for token in tokens:
            file.write(bytes([len(token)]) + token)


def _tokens(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each id; of a special token, its name's.

    Raises:
        ModelError: an id has no bytes, or more than llm.c reads.
    """
    if not tokenizer.is_exact:
        raise ModelError(
            f"{FORMAT} prints an id as bytes of its own, and those of the tokenizer {tokenizer.name} depend on their "
            "neighbours; export the model to hugging-face instead"
        )
    tokens = []
    for i in range(tokenizer.n_vocab):
        try:
            token = tokenizer.token_bytes(i)
        except TokenizerError:  # an id that stands for nothing
            token = b""
        tokens.append(token)
        if not 1 <= len(token) <= MOST_BYTES:
            raise ModelError(
                f"{FORMAT} takes tokens of 1 to {MOST_BYTES} bytes, and id {i} of the tokenizer {tokenizer.name} has "
                f"{len(token)}; export the model to hugging-face instead"
            )
    return tokens


def _header(*numbers: int) -> bytes:
    header = np.zeros(HEADER_NUMBERS, dtype="<i4")
    header[: len(numbers)] = numbers
    return header.tobytes()


def _in_order(network: Network, rows: int) -> Iterator[Tensor]:
    """The tensors as llm.c reads them: the embeddings, the blocks' kinds one after the other, the last norm."""
    state = network.state_dict()
    embedding = network.unpadded("wte.weight", state["wte.weight"])
    yield embedding
    yield embedding.new_zeros(rows - len(embedding), embedding.shape[1])
    yield state["wpe.weight"]
    for name in OF_A_BLOCK:
        for kind in ("weight", "bias"):
            for layer in range(network.config.n_layer):
                yield state[f"h.{layer}.{name}.{kind}"]
    yield state["ln_f.weight"]
    yield state["ln_f.bias"]


def _raw(tensor: Tensor, dtype: DtypeName) -> memoryview:
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    return tensor.detach().cpu().to(kind).contiguous().flatten().view(torch.uint8).numpy().data
