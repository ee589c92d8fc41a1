"""Causal attention by the online softmax, in plain torch: FlashAttention's recurrence, to be read.

The four operations keep (T, T) scores for each head. Here each block of queries goes over the keys a block at a time.
A softmax needs the largest score and the sum of all exponentials before it can divide, but both can be mended as it
goes: where a new block has a larger score, what was added up before is scaled down by exp(old - new). So nothing of
size T x T is ever there. The backward pass computes each block's probabilities again, from the log of that sum.

Sources:
    Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3: the online softmax.
    Dao 2023, arXiv:2307.08691, algorithms 1 and 2: FlashAttention-2's forward and backward passes.
"""

import math
from typing import Any

import torch
from torch import Tensor

BLOCK = 256  # queries and keys at a time


class OnlineSoftmax(torch.autograd.Function):
    """`OnlineSoftmax.apply(q, k, v)`: queries, keys and values (B, H, T, D) to (B, H, T, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = torch.empty_like(q)
        log_sums = q.new_empty(q.shape[:-1], dtype=torch.float32)  # (B, H, T)
        for rows in blocks(q.shape[2]):
            largest = torch.full_like(log_sums[..., rows], float("-inf"))
            total = torch.zeros_like(largest)
            weighted = torch.zeros_like(q[..., rows, :], dtype=torch.float32)
            for columns in blocks(rows.stop):
                scores = masked_scores(q, k, rows, columns)
                new_largest = torch.maximum(largest, scores.amax(-1))
                shrink = (largest - new_largest).exp()  # 0 for the first block
                p = (scores - new_largest[..., None]).exp()
                total = shrink * total + p.sum(-1)
                weighted = shrink[..., None] * weighted + (p.to(v.dtype) @ v[..., columns, :]).float()
                largest = new_largest
            y[..., rows, :] = (weighted / total[..., None]).to(y.dtype)
            log_sums[..., rows] = largest + total.log()
        ctx.save_for_backward(q, k, v, y, log_sums)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, y, log_sums = ctx.saved_tensors
        (grad,) = grads
        grad_q, grad_k, grad_v = (torch.zeros_like(part, dtype=torch.float32) for part in (q, k, v))
        # A softmax's gradient takes away the mean of grad_p under p, which is this sum over D.
        mean = (grad.float() * y.float()).sum(-1)  # (B, H, T)
        for rows in blocks(q.shape[2]):
            g = grad[..., rows, :]
            for columns in blocks(rows.stop):
                p = (masked_scores(q, k, rows, columns) - log_sums[..., rows, None]).exp()
                grad_v[..., columns, :] += p.to(g.dtype).transpose(-2, -1) @ g
                grad_p = (g @ v[..., columns, :].transpose(-2, -1)).float()
                grad_scores = (p * (grad_p - mean[..., rows, None]) / math.sqrt(q.shape[-1])).to(q.dtype)
                grad_q[..., rows, :] += grad_scores @ k[..., columns, :]
                grad_k[..., columns, :] += grad_scores.transpose(-2, -1) @ q[..., rows, :]
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)


def blocks(end: int) -> list[slice]:
    """The positions from 0 to `end`, a block at a time; the last may be shorter.

    >>> blocks(300)
    [slice(0, 256, None), slice(256, 300, None)]
    """
    return [slice(start, min(start + BLOCK, end)) for start in range(0, end, BLOCK)]


def masked_scores(q: Tensor, k: Tensor, rows: slice, columns: slice) -> Tensor:
    """What some queries make of some keys, fp32; minus infinity where a key comes after the query."""
    scores = (q[..., rows, :] @ k[..., columns, :].transpose(-2, -1)).float() / math.sqrt(q.shape[-1])
    if columns.stop - 1 <= rows.start:
        return scores
    at = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
    return scores.masked_fill(torch.arange(columns.start, columns.stop, device=q.device) > at, float("-inf"))
