"""The loss: cross-entropy of the next token, in nats.

Nothing is divided here: training divides by the number of targets in the whole batch. Three functions compute the loss.
`token_nats` is the definition: the loss of each target, from logits that exist already. The other two start from the
hidden states and never hold all logits: at GPT-2's vocabulary the logits of one 8x1024 batch are 1.6 GB in fp32, over
three times the weights of GPT-2 124M. They take the B x T positions ("rows") in chunks. `head_nats` gives the sum, and
computes the head's gradients in the same pass. `head_token_nats` gives each target's loss, for evaluation.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.model.matrix import Matrix, times

# A target with this value is not scored. It is PyTorch's default.
IGNORE = -100

# The head holds at most this many bytes of logits at once. (On a GPU with more than 16 GB it holds more, see
# `_chunk_bytes`.) In bf16 that is 2,668 rows of GPT-2's logits. A batch of 64x1024 is cut into equal chunks of 2,048
# rows, 206 MB each.
CHUNK_BYTES = 1 << 28
# The same on a CPU, where smaller products are no slower.
CPU_CHUNK_BYTES = 1 << 26
# Bytes of logits that softmax works on at once on a CPU, so that its few fp32 copies stay in the processor's cache.
CPU_BLOCK_BYTES = 1 << 24
# A GPU's kernels go through a matrix in tiles of at most this many rows.
TILE_ROWS = 128


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


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Bounds logits x smoothly between -c and c, by c tanh(x / c), where c is softcap. None leaves them unchanged.

    It computes in fp32 or wider.

    Source:
        Gemma 2, arXiv:2408.00118, section 2.

    >>> capped(torch.tensor([0.0, 1e9]), 15.0)
    tensor([ 0., 15.])
    """
    if softcap is None:
        return logits
    wide = logits.float() if logits.itemsize < 4 else logits
    return softcap * torch.tanh(wide / softcap)


def _block_nats(logits: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """Each row's loss. Overwrites the row's logits with the gradient of this loss with respect to them.

    Args:
        softcap: the bound of the logits, see `capped`; None for none.
    Shapes:
        logits   (N, V)  without padding
        targets  (N,)    int64, or IGNORE
        returns  (N,)    float32 nats
    """
    scored = (targets != IGNORE)[:, None]
    column = torch.where(scored, targets[:, None], 0)
    bounded = capped(logits.float(), softcap)
    log_p = F.log_softmax(bounded, dim=1)
    at_target = log_p.gather(1, column)
    # The gradient is p, but p - 1 at the target. There, 1 is subtracted before rounding to the logits' precision.
    logits.copy_(log_p.exp_()).mul_(scored)
    logits.scatter_(1, column, torch.where(scored, at_target.exp() - 1, 0.0).to(logits.dtype))
    if softcap is not None:
        logits.mul_(1 - (bounded / softcap).square())
    return torch.where(scored, -at_target, 0.0).squeeze(1)


def _block_nats_by_comparison(logits: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """`_block_nats`, written so that a compiler for GPUs makes one kernel of it, without a copy of the logits.

    With a gather and a scatter, the compiler can't write each number to the place that it was read from. So here a
    comparison finds the target's column. The softmax is written out, because the loss must be computed before the
    logits are overwritten. Uncompiled, this function holds several copies of the logits.
    """
    scored = (targets != IGNORE)[:, None]
    # No column has the number IGNORE, so a row without a target is False everywhere.
    is_target = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    bounded = capped(logits.float(), softcap)
    at_target = torch.where(is_target, bounded, 0.0).sum(dim=1, keepdim=True)
    largest = bounded.amax(dim=1, keepdim=True)
    log_sum = (bounded - largest).exp().sum(dim=1, keepdim=True).log()
    p = (bounded - largest - log_sum).exp()
    gradient = torch.where(is_target, p - 1, p).to(logits.dtype) * scored
    if softcap is not None:
        gradient = gradient * (1 - (bounded / softcap).square())
    logits.copy_(gradient)
    return torch.where(scored, -(at_target - largest - log_sum), 0.0).squeeze(1)


@functools.cache
def _compiled_block_nats(on_cpu: bool) -> Callable[[Tensor, Tensor, float | None], Tensor]:
    return torch.compile(_block_nats if on_cpu else _block_nats_by_comparison, dynamic=False)


class _HeadNats(torch.autograd.Function):
    """Head and loss as one function. Its forward pass already computes the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        vocab_size: int,
        chunk_rows: int,
        block_rows: int,
        block_columns: int,
        compiled: bool,
        softcap: float | None,
    ) -> Tensor:
        block_nats = _compiled_block_nats(hidden.device.type == "cpu") if compiled else _block_nats
        cast_weight = weight.to(hidden.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.empty_like(weight)
        buffer = hidden.new_empty(min(chunk_rows, len(hidden)), len(weight))
        for start in range(0, len(hidden), chunk_rows):
            rows = slice(start, start + chunk_rows)
            # Block by block, these logits are replaced by their gradient.
            logits = buffer[: len(hidden[rows])]
            torch.mm(hidden[rows], cast_weight.t(), out=logits)
            # `block_nats` gets no padding. The padding's gradient is 0, since no token's loss depends on it.
            logits[:, vocab_size:] = 0
            for block, wanted in zip(logits.split(block_rows), targets[rows].split(block_rows), strict=True):
                total += block_nats(block[:, :vocab_size], wanted, softcap).sum()
            torch.mm(logits, cast_weight, out=grad_hidden[rows])
            for columns, gradient in zip(
                logits.split(block_columns, dim=1), grad_weight.split(block_columns), strict=True
            ):
                part = columns.t() @ hidden[rows]  # (block_columns, C), in the dtype of `hidden`
                gradient.copy_(part) if start == 0 else gradient.add_(part)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (scale,) = grad_outputs
        return grad_hidden.mul_(scale), grad_weight.mul_(scale), *[None] * 7


def head_nats(
    hidden: Tensor,
    weight: Tensor | Matrix,
    targets: Tensor,
    vocab_size: int,
    *,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
    compiled: bool = False,
) -> Tensor:
    """The summed loss of a batch straight from the hidden states, without ever holding all logits.

    The products run in autocast's dtype, or without autocast in that of `hidden`. Softmax and sums run in fp32.

    Args:
        softcap: the bound of the logits, see `capped`; None for none.
    Shapes:
        hidden   (B, T, C)  what the head reads
        weight   (Vp, C)    the head's weight (a tied head's: the token embeddings), with rows of padding
        targets  (B, T)     int64, or IGNORE
        returns  ()         float32 nats; first derivatives by `hidden` and `weight`, no second ones
    """
    if not torch.is_grad_enabled():
        found = head_token_nats(hidden, weight, targets, vocab_size, softcap=softcap, chunk_bytes=chunk_bytes)
        return found.sum()
    assert isinstance(weight, Tensor), "stored weights have no gradients"
    rows, wanted = _as_autocast(hidden).flatten(0, 1), targets.flatten()
    chunk_bytes = chunk_bytes or _chunk_bytes(hidden.device)
    chunk_rows = _rows_at_once(
        len(rows), chunk_bytes // (weight.shape[0] * rows.element_size()), rows.device.type
    )
    block_rows, block_columns = chunk_rows, weight.shape[0]
    if rows.device.type == "cpu":
        block_rows = _even_rows(chunk_rows, CPU_BLOCK_BYTES // (weight.shape[0] * 4))
        block_columns = _even_rows(weight.shape[0], CPU_BLOCK_BYTES // (weight.shape[1] * 4))
    # The code above has chosen the dtypes.
    with torch.autocast(hidden.device.type, enabled=False):
        return _HeadNats.apply(
            rows, weight, wanted, vocab_size, chunk_rows, block_rows, block_columns, compiled, softcap
        )


@torch.no_grad()
def head_token_nats(
    hidden: Tensor,
    weight: Tensor | Matrix,
    targets: Tensor,
    vocab_size: int,
    *,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
) -> Tensor:
    """`token_nats` straight from the hidden states, for evaluation: no gradients, and never all logits at once.

    Args:
        softcap: the bound of the logits, see `capped`; None for none.
    Shapes:
        hidden   (..., C)
        weight   (Vp, C)  the head's weight (a tied head's: the token embeddings), with rows of padding
        targets  (...)    int64, or IGNORE
        returns  (...)    float32 nats
    """
    rows, wanted = _as_autocast(hidden).flatten(0, -2), targets.flatten()
    # The weight keeps its padding here; the logits lose theirs below. Matrices of odd sizes go through slower kernels.
    cast_weight = weight if isinstance(weight, Matrix) else weight.to(rows.dtype)
    chunk_bytes = chunk_bytes or _chunk_bytes(hidden.device)
    chunk_rows = _rows_at_once(len(rows), chunk_bytes // (vocab_size * 4), rows.device.type)
    with torch.autocast(hidden.device.type, enabled=False):
        chunks = zip(rows.split(chunk_rows), wanted.split(chunk_rows), strict=True)
        found = [
            token_nats(capped(times(some, cast_weight)[:, :vocab_size], softcap), ids) for some, ids in chunks
        ]
        return torch.cat(found).view(targets.shape)


def _chunk_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        # Each chunk reads and writes the weight's whole gradient once. So a large GPU takes fewer and larger chunks.
        return max(CHUNK_BYTES, torch.cuda.get_device_properties(device).total_memory // 64)
    return CPU_CHUNK_BYTES if device.type == "cpu" else CHUNK_BYTES


def _rows_at_once(rows: int, most: int, device_type: str) -> int:
    """How many rows a chunk has. On a CPU the chunks are nearly equal. Elsewhere each chunk is a number of whole tiles.

    The compiler works once if all chunks are equal, and twice if the last one differs. So except on a CPU, the function
    makes up to twice as many chunks as needed, if that makes all equal. If no number of chunks makes them equal, only
    the last chunk is smaller.

    >>> _rows_at_once(64 * 1024, 23_000, "cuda"), _rows_at_once(1000, 300, "cuda")
    (16384, 256)
    """
    if device_type == "cpu":
        return _even_rows(rows, most)
    tiles, most_tiles = -(-rows // TILE_ROWS), max(1, most // TILE_ROWS)
    needed = -(-tiles // most_tiles)
    if rows % TILE_ROWS == 0:
        for chunks in range(needed, 2 * needed + 1):
            if tiles % chunks == 0:
                return tiles // chunks * TILE_ROWS
    return -(-tiles // needed) * TILE_ROWS


def _even_rows(rows: int, most: int) -> int:
    """How many rows a chunk has, so that chunks of at most `most` rows (and at least 1) are nearly equal."""
    most = max(1, min(most, rows))
    chunks = -(-rows // most)
    return max(1, -(-rows // chunks))


def _as_autocast(hidden: Tensor) -> Tensor:
    """`hidden` in the dtype that autocast would multiply in; unchanged outside of autocast."""
    if torch.is_autocast_enabled(hidden.device.type):
        return hidden.to(torch.get_autocast_dtype(hidden.device.type))
    return hidden
