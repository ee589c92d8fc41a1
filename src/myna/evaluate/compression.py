"""A yardstick that needs no model: what bzip2 makes of the same validation text.

A language model is a compressor (its bits per byte are what an arithmetic coder driven by it would need), so the
two numbers compare. bzip2 reads the text without having seen any other; the model was trained on its neighbours.
"""

import bz2

import numpy as np

from myna.data.batches import VALIDATION_TARGETS
from myna.data.split import Split
from myna.text.tokenizer import Tokenizer

TEXT_LIMIT_BYTES = 64_000_000  # more takes longer than it tells
PIECE_BYTES = 1 << 20


def bz2_bits_per_byte(split: Split, tokenizer: Tokenizer) -> tuple[float, int] | None:
    """Bits per byte of `bz2 -9` over the text whose bits per byte `validation_scores` gives, and its length in bytes.

    The text is that of the first min(10,485,760, all) validation targets, documents joined without a separator:
    the same bytes, in the same order.

    Returns:
        None where that text is empty, or longer than `TEXT_LIMIT_BYTES`, or where the ids don't keep all of it.
    """
    n_targets = min(VALIDATION_TARGETS, split.n_tokens - 1)
    if n_targets < 1:
        return None
    ids = split.read(1, n_targets)
    id_bytes = tokenizer.id_bytes()
    if id_bytes is None or not 0 < int(id_bytes[ids].sum()) <= TEXT_LIMIT_BYTES:
        return None
    text = tokenizer.decode_bytes(np.asarray(ids)[id_bytes[ids] > 0].tolist())
    compressor = bz2.BZ2Compressor(9)  # piece by piece: a signal is answered between them
    pieces = range(0, len(text), PIECE_BYTES)
    size = sum(len(compressor.compress(text[start : start + PIECE_BYTES])) for start in pieces)
    return 8 * (size + len(compressor.flush())) / len(text), len(text)
