"""GGUF, the file of llama.cpp and the programs around it: weights, shape and tokenizer in one.

Metadata and names are those that llama.cpp's converter writes for GPT-2. llama.cpp ties the head to the embedding where
the file has no `output.weight`.

Sources:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    llama.cpp: convert_hf_to_gguf.py (GPT2Model, get_vocab_base, prepare_tensors), src/models/gpt2.cpp,
    src/llama-vocab.cpp (the pre-tokenizer gpt-2)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from myna.errors import ModelError, TokenizerError
from myna.model.exchange import DtypeName
from myna.model.exchange.gpt2_alone import check_gpt2, named_arrays
from myna.model.network import Network
from myna.text import gpt2
from myna.text.tokenizer import Tokenizer
from myna.text.vocabulary import (
    CHAT_TEMPLATE,
    CHAT_TOKENS,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    FIM_TOKENS,
    TURN_END,
    Vocabulary,
)

FORMAT = "GGUF"
# llama.cpp adds positions and norms in fp32, whatever the matrices are.
ALWAYS_FP32 = ("wpe.weight",)


def write(place: Path, network: Network, tokenizer: Tokenizer, dtype: DtypeName) -> None:
    """Writes one file.

    Args:
        dtype: of the matrices; vectors and positions stay fp32.
    Raises:
        ModelError: the network is not GPT-2, the tokenizer not one that GGUF can hold for it, or a weight is too large
            for fp16.
    """
    import gguf

    check_gpt2(network, tokenizer, FORMAT)
    vocabulary = expressible(tokenizer)
    writer = gguf.GGUFWriter(place, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    _add_shape(writer, network, dtype)
    _add_tokenizer(writer, vocabulary, tokenizer.eot)
    _add_frames(writer, tokenizer.special_tokens)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, network.config.n_layer)
    for name, array in named_arrays(network):
        theirs = names.get_name(f"transformer.{name}", try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        stored, kind = _stored(name, array, dtype)
        writer.add_tensor(theirs, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expressible(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer that GGUF can hold with llama.cpp's pre-tokenizer `gpt-2`.

    Raises:
        ModelError: it can't; says why.
    """

    def refused(why: str) -> ModelError:
        return ModelError(
            f"{FORMAT} cannot hold the tokenizer {tokenizer.name}: {why}. Export the model to hugging-face instead"
        )

    try:
        vocabulary = tokenizer.vocabulary
    except TokenizerError as error:
        raise refused("it is no byte-level BPE of a known pattern") from error
    if not vocabulary.merges:
        raise refused("it has no merges, and llama.cpp refuses a file without them")
    if vocabulary.pattern.name != "gpt2":
        raise refused(
            f"it splits text by the pattern {vocabulary.pattern.name}, and of ours llama.cpp has GPT-2's alone"
        )
    if not vocabulary.is_complete:
        raise refused("it has tokens that no merge makes")
    tokens, _ = _spelled(vocabulary)
    if len(set(tokens)) != len(tokens):
        raise refused("a special token is spelled like another token")
    return vocabulary


def _spelled(vocabulary: Vocabulary) -> tuple[list[str], list[str]]:
    """The tokens by id in GPT-2's spelling, and their kinds by the names of gguf.TokenType."""
    special = {i: name for name, i in vocabulary.special_tokens.items()}
    tokens, kinds = [], []
    for i in range(max(len(vocabulary.tokens) - 1, *special) + 1):
        token = vocabulary.tokens[i] if i < len(vocabulary.tokens) else None
        if i in special:
            tokens.append(special[i])
            kinds.append("CONTROL")
        elif token is not None:
            tokens.append(gpt2.spell(token))
            kinds.append("NORMAL")
        else:  # as the converter names an id without a token
            tokens.append(f"[PAD{i}]")
            kinds.append("UNUSED")
    return tokens, kinds


def _add_shape(writer: Any, network: Network, dtype: DtypeName) -> None:
    import gguf

    config = network.config
    kinds = gguf.LlamaFileType
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("myna")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type({"fp32": kinds.ALL_F32, "fp16": kinds.MOSTLY_F16, "bf16": kinds.MOSTLY_BF16}[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: Any, vocabulary: Vocabulary, eot: int) -> None:
    import gguf

    tokens, kinds = _spelled(vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType[kind] for kind in kinds])
    writer.add_token_merges([" ".join(map(gpt2.spell, merge)) for merge in vocabulary.merges])
    writer.add_bos_token_id(eot)
    writer.add_eos_token_id(eot)
    writer.add_add_bos_token(False)


def _stored(name: str, array: np.ndarray, dtype: DtypeName) -> tuple[np.ndarray, Any]:
    """A tensor as it stands in the file, and its type by gguf's table.

    Raises:
        ModelError: a weight is too large for fp16.
    """
    from gguf import GGMLQuantizationType, quants

    if dtype == "fp32" or array.ndim < 2 or name in ALWAYS_FP32:
        return array, GGMLQuantizationType.F32
    if dtype == "bf16":
        return quants.quantize(array, GGMLQuantizationType.BF16), GGMLQuantizationType.BF16
    largest = np.finfo(np.float16).max
    if not bool((np.abs(array) <= largest).all()):
        raise ModelError(
            f"{name} has weights over {largest:,.0f}, the largest fp16; give --dtype bf16 or fp32"
        )
    return array.astype(np.float16), GGMLQuantizationType.F16


def _add_frames(writer: Any, special_tokens: Mapping[str, int]) -> None:
    """How a conversation and a middle are framed, for a model that has the tokens."""
    if set(CHAT_TOKENS) <= set(special_tokens):
        writer.add_chat_template(CHAT_TEMPLATE)
        writer.add_eot_token_id(special_tokens[TURN_END])
    if set(FIM_TOKENS) <= set(special_tokens):
        for name, token in (("pre", FIM_PREFIX), ("suf", FIM_SUFFIX), ("mid", FIM_MIDDLE)):
            writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", special_tokens[token])
