"""Perplexity and bits per byte of a text, in windows that overlap.

A model sees `length` ids at once. With windows side by side, the first tokens of each are predicted from little. With
windows `stride` apart, each token is still scored once, but from the second window on with at least length - stride
ids before it: the smaller the stride, the better the score and the longer it takes. So the stride belongs to the score.

    perplexity     e^(nats / tokens): as uncertain as a choice among so many equally likely tokens
    bits per byte  nats of the text's tokens / (ln 2 * its bytes in UTF-8): comparable between tokenizers

Source: the Hugging Face documentation, "Perplexity of fixed-length models"; its window of 1024 and stride of 512 are
common. There the first token of all is not scored; here it is predicted from the end-of-text id before it.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from myna.evaluate.continuations import Question, question_scores
from myna.evaluate.finite import finite
from myna.model.network import Network

WINDOWS_AT_ONCE = 256  # made into questions; bounds the memory
MOST_NATS = 700.0  # e^709 is the largest that a float holds


def windows(n_ids: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Of each window, the first id that it reads, the first that it scores, and one past the last that it scores.

    >>> list(windows(11, length=4, stride=3))  # the id 0 begins the text, and is no target
    [(0, 1, 5), (3, 5, 8), (6, 8, 11)]
    >>> list(windows(10, length=4, stride=4)), list(windows(3, length=4, stride=3))
    ([(0, 1, 5), (4, 5, 9), (8, 9, 10)], [(0, 1, 3)])
    """
    first, scored = 0, 1
    while scored < n_ids:
        end = min(first + length + 1, n_ids)
        yield first, scored, end
        first, scored = first + stride, end


def perplexity_sums(
    network: Network,
    ids: np.ndarray,
    is_text: np.ndarray,
    *,
    length: int,
    stride: int,
    rank: int = 0,
    world_size: int = 1,
    autocast_dtype: torch.dtype | None = None,
    on_tokens: Callable[[int], None] | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Tensor:
    """One rank's share of the sums.

    Args:
        ids: two or more; the first is no target.
        is_text: (n_vocab,) bool, which ids are text: `Tokenizer.text_ids()`.
        length: ids a window, at most the network's block_size.
        stride: from one window to the next, 1 to length.
        on_tokens: called with the number of tokens done after each batch.
        network, rank, world_size, autocast_dtype, before_batch: see `question_scores`.
    Returns:
        (3,) float64 on the CPU: nats, tokens, nats of the tokens that are text.
    """
    assert 1 <= stride <= length <= network.config.block_size
    assert len(ids) > 1
    total = torch.zeros(3, dtype=torch.float64)
    spans = windows(len(ids), length, stride)
    while some := list(islice(spans, WINDOWS_AT_ONCE)):
        questions = [
            Question((tuple(ids[first:end].tolist()),), (end - scored,)) for first, scored, end in some
        ]
        batches = question_scores(
            network,
            questions,
            rank=rank,
            world_size=world_size,
            autocast_dtype=autocast_dtype,
            before_batch=before_batch,
        )
        for batch in batches:
            done = 0
            for number, (score,) in batch.items():
                _, scored, end = some[number]
                nats = np.array(score.token_nats)
                of_text = nats[is_text[ids[scored:end]]]
                total += torch.tensor([nats.sum(), len(nats), of_text.sum()], dtype=torch.float64)
                done += end - scored
            if on_tokens:
                on_tokens(done)
    return total


def perplexity_scores(sums: Tensor, text_bytes: int | None) -> dict[str, float]:
    """Sums, added over the ranks, to what is reported.

    Args:
        text_bytes: of the text that was scored, in UTF-8; None where nobody knows.
    Raises:
        ModelError: the model's output was not finite.

    >>> perplexity_scores(torch.tensor([3 * math.log(8), 3, 2 * math.log(8)], dtype=torch.float64), 4)
    {'perplexity': 7.999999999999998, 'nats_per_token': 2.0794415416798357, 'bits_per_byte': 1.5}
    """
    nats, tokens, text_nats = sums.tolist()
    mean = nats / tokens
    scores = {
        "perplexity": math.exp(mean) if mean < MOST_NATS else math.inf * mean,
        "nats_per_token": mean,
    }
    if text_bytes:
        scores["bits_per_byte"] = text_nats / (math.log(2) * text_bytes)
    return finite(scores)
