"""The loss: cross-entropy of the next token, in nats, as a sum, so that whoever adds parts divides once at the end.

Two ways to the same number. `token_nats` is the definition, over logits that are already there. `head_nats` never
holds all logits: at GPT-2's vocabulary the logits of one 8x1024 batch are 1.6 GB in fp32, more than everything
else in the network. It goes over the rows in chunks and computes the head's gradients on the way.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100  # a target that is not scored (PyTorch's own default for it)

CHUNK_ELEMENTS = 1 << 24  # logits held at once by `head_nats`: 64 MB in fp32


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each target by itself, in nats.

    Shapes:
        logits   (..., V)  float; softmaxed in fp32
        targets  (...)     int64 ids below V, or IGNORE
        returns  (...)     float32; 0 where the target is IGNORE

    >>> token_nats(torch.zeros(1, 2, 4), torch.tensor([[3, IGNORE]]))  # ln 4, and not scored
    tensor([[1.3863, 0.0000]])
    """
    flat = F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return flat.view(targets.shape)


def _chunk_nats(logits: Tensor, targets: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Each row's loss and its gradient by the logits, in the logits' own precision.

    Shapes:
        logits   (N, Vp)  with padding columns, which take no part: their gradient is 0
        targets  (N,)     int64, or IGNORE
        returns  nats (N,) float32; gradient (N, Vp)
    """
    scored = targets != IGNORE
    column = torch.arange(logits.shape[1], device=logits.device)
    scores = torch.where(column < vocab_size, logits.float(), float("-inf"))
    log_normalizer = torch.logsumexp(scores, dim=1, keepdim=True)
    safe = torch.where(scored, targets, 0)[:, None]
    nats = torch.where(scored, (log_normalizer - scores.gather(1, safe)).squeeze(1), 0.0)
    gradient = torch.exp(scores - log_normalizer) - (column == safe).float()
    return nats, (gradient * scored[:, None]).to(logits.dtype)


@functools.cache
def _compiled_chunk_nats() -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
    return torch.compile(_chunk_nats, dynamic=False)


class _HeadNats(torch.autograd.Function):
    """Head and loss as one function whose gradients are ready when its value is."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        vocab_size: int,
        chunk_rows: int,
        compiled: bool,
    ) -> Tensor:
        chunk_nats = _compiled_chunk_nats() if compiled else _chunk_nats
        low = weight.to(hidden.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        for start in range(0, len(hidden), chunk_rows):
            rows = slice(start, start + chunk_rows)
            nats, gradient = chunk_nats(hidden[rows] @ low.t(), targets[rows], vocab_size)
            total += nats.sum()
            torch.mm(gradient, low, out=grad_hidden[rows])
            grad_weight += gradient.t() @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (scale,) = grad_outputs
        return grad_hidden * scale, grad_weight * scale, None, None, None, None


def head_nats(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    vocab_size: int,
    *,
    chunk_elements: int = CHUNK_ELEMENTS,
    compiled: bool = False,
) -> Tensor:
    """The summed loss of a batch straight from the hidden states, without ever holding all logits.

    The products run in the dtype of `hidden` (bf16 under autocast); softmax and sums in fp32.

    Shapes:
        hidden   (B, T, C)  what the head reads
        weight   (Vp, C)    token embeddings, with rows that pad the vocabulary
        targets  (B, T)     int64, or IGNORE
        returns  ()         float32 nats, differentiable once by `hidden` and `weight`
    """
    if not torch.is_grad_enabled():
        return head_token_nats(hidden, weight, targets, vocab_size, chunk_elements=chunk_elements).sum()
    rows, wanted = _as_autocast(hidden).flatten(0, 1), targets.flatten()
    chunk_rows = max(1, chunk_elements // weight.shape[0])
    with torch.autocast(hidden.device.type, enabled=False):  # the dtypes are settled above
        return _HeadNats.apply(rows, weight, wanted, vocab_size, chunk_rows, compiled)


@torch.no_grad()
def head_token_nats(
    hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, *, chunk_elements: int = CHUNK_ELEMENTS
) -> Tensor:
    """`token_nats` straight from the hidden states, for evaluation: without gradients or all logits at once.

    Shapes:
        hidden   (..., C)
        weight   (Vp, C)  token embeddings, with rows that pad the vocabulary
        targets  (...)    int64, or IGNORE
        returns  (...)    float32 nats
    """
    rows, wanted = _as_autocast(hidden).flatten(0, -2), targets.flatten()
    low = weight[:vocab_size].to(rows.dtype)
    chunk_rows = max(1, chunk_elements // vocab_size)
    with torch.autocast(hidden.device.type, enabled=False):
        chunks = zip(rows.split(chunk_rows), wanted.split(chunk_rows), strict=True)
        return torch.cat([token_nats(some @ low.t(), ids) for some, ids in chunks]).view(targets.shape)


def _as_autocast(hidden: Tensor) -> Tensor:
    """In the dtype that autocast would multiply in, or as it is."""
    if torch.is_autocast_enabled(hidden.device.type):
        return hidden.to(torch.get_autocast_dtype(hidden.device.type))
    return hidden
