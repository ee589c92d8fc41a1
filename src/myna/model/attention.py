"""Causal attention over all heads, by the device's fastest kernel. Training and cached decoding call one function.

The kernel is torch's `scaled_dot_product_attention`, except in two cases on a CPU: a compiled decoding step uses
`_of_one`, and training in bf16 without dropout uses `blocked_attention`. torch's kernel for a CPU multiplies small
blocks; in bf16 it reaches a tenth of the processor's matrix speed. `blocked_attention` computes the same in few large
matrix products. It takes 256 queries of all heads at a time, and multiplies them only with the keys up to the last of
these queries. So most of what the causal mask would discard is never computed. The forward pass keeps nothing of size
T x T: the backward pass computes the probabilities again, for 256 queries at a time.

Source of the recomputation: FlashAttention, Dao et al. 2022, arXiv:2205.14135, algorithm 4.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from myna.model.cache import LayerCache

# torch's GPU kernels that need no preparation for a new shape. Flash attention takes no mask; efficient attention does.
FOR_ANY_SHAPE = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

# Queries in a block. With 128 to 512, the times were within a tenth of each other (docs/log.md).
QUERIES = 256

# `attention` calls each of these functions with q, k and v, if it has no cache. Only `attention_watched` adds any.
_watchers: list[Callable[[Tensor, Tensor, Tensor], None]] = []


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0, cache: "LayerCache | None" = None
) -> Tensor:
    """Each position attends to itself and to the positions before it.

    Args:
        dropout: fraction of the probabilities dropped.
        cache: holds the earlier positions; the new ones are added to it.
    Shapes:
        q, k, v  (B, H, T, D)
        returns  (B, T, C)  heads side by side
    """
    if cache is not None:
        k, v = cache.append(k, v)  # (B, H, S, D), S = the positions so far, with these
        if torch.compiler.is_compiling() and q.device.type == "cpu" and q.shape[2] == 1:
            return join_heads(_of_one(q, k, v, cache.mask(1)))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=cache.mask(q.shape[2]), dropout_p=dropout)
        return join_heads(y)
    for see in _watchers:
        see(q, k, v)
    if in_blocks(q.device, q.dtype) and not dropout and torch.is_grad_enabled():
        return blocked_attention(q, k, v)
    return join_heads(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True))


def in_blocks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether training uses `blocked_attention` with this device and dtype; otherwise PyTorch's kernel is faster."""
    return device.type == "cpu" and dtype == torch.bfloat16


def _of_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of one query. A compiler makes two loops of this code, which read each key and each value once.

    torch's kernel for a CPU multiplies small matrices here. It takes twice as long in fp32, and five times as long in
    bf16.

    Shapes:
        q        (B, H, 1, D)
        k, v     (B, H, S, D)
        mask     (B, 1, 1, S) bool; None where the query sees all
        returns  (B, H, 1, D), like q
    """
    scores = (q.float() * k.float()).sum(dim=-1) * _scale(q)  # (B, H, S)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, 0], float("-inf"))
    p = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    y = (p[..., None] * v.float()).sum(dim=2) / p.sum(dim=-1, keepdim=True)  # (B, H, D)
    return y[:, :, None].to(q.dtype)


def kernels_for_any_shape(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Inside the `with` statement, attention on CUDA uses the first kernel of `FOR_ANY_SHAPE` that can compute it.

    On compute capability 9.0 torch prefers cuDNN's kernel, which builds a plan for each new shape. Training has
    one shape, but decoding and scoring texts meet new shapes all the time. The setting holds for all threads.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return sdpa_kernel(FOR_ANY_SHAPE, set_priority=True)


@contextlib.contextmanager
def attention_watched(see: Callable[[Tensor, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside the `with` statement, `attention` also calls `see(q, k, v)`, if it has no cache.

    q, k and v are (B, H, T, D) each. Use it in one thread, and not with compiled code.
    """
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    """The probabilities that weight the values in `attention`: row t says how much position t attends to each position.

    Shapes:
        q, k     (B, H, T, D)
        returns  (B, H, T, T)  each row sums to 1; 0 after the diagonal

    >>> attention_map(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)).tolist()
    [[[[1.0, 0.0], [0.5, 0.5]]]]
    """
    return _probabilities(q.flatten(0, 1), k.flatten(0, 1)).unflatten(0, q.shape[:2])


def split_heads(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Splits queries, keys and values, side by side in (B, T, 3C), into three views of (B, H, T, D)."""
    B, T, _ = qkv.shape
    q, k, v = qkv.view(B, T, 3, n_head, -1).permute(2, 0, 3, 1, 4)
    return q, k, v


def join_heads(y: Tensor) -> Tensor:
    """(B, H, T, D) to (B, T, C)."""
    return y.transpose(1, 2).flatten(2)


@functools.cache
def _mask(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n, n): 0 where a query may look, -inf at the keys after it."""
    return torch.full((n, n), float("-inf"), dtype=dtype, device=device).triu(1)


def _probabilities(q: Tensor, k: Tensor) -> Tensor:
    """The attention probability of each key, for each query.

    Shapes:
        q        (N, n, D)  the last n positions; N = B * H
        k        (N, S, D)  all positions up to the last query
        returns  (N, n, S)
    """
    n = q.shape[1]
    scores = _scaled_product(q, k.transpose(1, 2), _scale(q))
    scores[:, :, -n:].add_(_mask(n, q.dtype, q.device))
    return scores.softmax(dim=-1)


def _scale(q: Tensor) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a @ b, in one kernel."""
    # With beta=0 baddbmm ignores its first argument, even a NaN in it.
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


@torch.library.custom_op("myna::blocked_attention", mutates_args=())
def blocked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal `attention` in blocks of queries. It is a custom operator, so that a compiler does not trace its loop.

    Shapes:
        q, k, v  (B, H, T, D)
        returns  (B, T, C)
    """
    n_head = q.shape[1]
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # (B * H, T, D)
    y = torch.empty_like(q)
    for start in range(0, q.shape[1], QUERIES):
        end = min(start + QUERIES, q.shape[1])
        y[:, start:end] = torch.bmm(_probabilities(q[:, start:end], k[:, :end]), v[:, :end])
    return join_heads(y.unflatten(0, (-1, n_head)))


@torch.library.custom_op("myna::blocked_attention_backward", mutates_args=())
def blocked_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients with respect to queries, keys and values.

    Shapes:
        grad     (B, T, C)
        q, k, v  (B, H, T, D)
        returns  three of (B, H, T, D)
    """
    n_head = q.shape[1]
    grad = grad.unflatten(2, (n_head, -1)).transpose(1, 2).flatten(0, 1)  # (B * H, T, D)
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for start in range(0, q.shape[1], QUERIES):
        end = min(start + QUERIES, q.shape[1])
        some, seen, g = q[:, start:end], k[:, :end], grad[:, start:end]
        p = _probabilities(some, seen)
        grad_v[:, :end] += torch.bmm(p.transpose(1, 2), g)
        grad_p = torch.bmm(g, v[:, :end].transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype)
        grad_q[:, start:end] = _scaled_product(grad_scores, seen, _scale(q))
        grad_k[:, :end] += _scaled_product(grad_scores.transpose(1, 2), some, _scale(q))
    by_head = [part.unflatten(0, (-1, n_head)) for part in (grad_q, grad_k, grad_v)]
    return by_head[0], by_head[1], by_head[2]


@blocked_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    B, H, T, D = q.shape
    return q.new_empty(B, T, H * D)


@blocked_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return blocked_attention_backward(grad, *ctx.saved_tensors)


blocked_attention.register_autograd(_differentiate, setup_context=_keep)
