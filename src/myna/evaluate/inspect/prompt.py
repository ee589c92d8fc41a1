"""What a network computes on its way through a prompt: the residual stream, attention, and what each layer would say.

Everything is recorded while the network itself computes, so the numbers are those of the real forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from myna.model.attention import attention_map, attention_watched
from myna.model.evaluation import evaluation_mode
from myna.model.network import Network

# What `attention` was given: queries, keys and values, each (1, H, T, D).
Heads = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Trace:
    """A prompt's way through the layers.

    Attributes:
        ids: (T,) the prompt.
        streams: L + 1 of (T, C): the residual stream before the first layer, then after each.
        heads: L lists of what the layer's calls of `attention` were given; usually one call.
    """

    ids: Sequence[int]
    streams: list[Tensor]
    heads: list[list[Heads]]

    def attention(self, layer: int) -> Tensor:
        """What each head takes from where: (H, T, T), a row for each position; H is 0 for a layer without attention."""
        T = len(self.ids)
        maps = [attention_map(q, k)[0] for q, k, _ in self.heads[layer]]
        return torch.cat(maps) if maps else torch.zeros(0, T, T)


def trace(network: Network, ids: Sequence[int]) -> Trace:
    """Runs a prompt through a network, and keeps what passes.

    Raises:
        ModelError: the prompt is empty, longer than the model's window, or holds an id that the model lacks.
    """
    streams: list[Tensor] = []
    heads: list[list[Heads]] = []

    def through(block: nn.Module, x: Tensor, *rest: Tensor | None) -> Tensor:
        calls: list[Heads] = []
        if not streams:
            streams.append(x[0])
        with attention_watched(lambda q, k, v: calls.append((q, k, v))):
            x = block(x, *rest)
        streams.append(x[0])
        heads.append(calls)
        return x

    with torch.no_grad(), evaluation_mode(network):
        network.hidden(torch.tensor([list(ids)], dtype=torch.int64, device=network.device), through=through)
    return Trace(ids, streams, heads)


def lens(network: Network, seen: Trace, layer: int) -> Tensor:
    """The logit lens: what the network would predict if the layers after one did nothing.

    The residual stream goes through what follows the last layer: the last norm, then the head.

    Args:
        layer: 0 for the stream before the first layer, L for the network's own logits.
    Returns:
        (T, V) natural logarithms of probabilities.
    Source:
        nostalgebraist 2020, "interpreting GPT: the logit lens", lesswrong.com.
    """
    first = network.blocks[0]

    def put_in(block: nn.Module, x: Tensor, *_: Tensor | None) -> Tensor:
        return seen.streams[layer][None] if block is first else x

    with torch.no_grad(), evaluation_mode(network):
        ids = torch.tensor([list(seen.ids)], dtype=torch.int64, device=network.device)
        return network.logits(network.hidden(ids, through=put_in))[0].float().log_softmax(dim=-1)


@dataclass(frozen=True)
class LensRow:
    """What one layer would predict.

    Attributes:
        layer: 0 is before the first.
        ids: (T,) the likeliest next id at each position.
        probabilities: (T,) theirs.
        top: of the last position, the likeliest ids and their probabilities.
        nats: mean loss of the prompt's own next ids; None for a prompt of one id.
    """

    layer: int
    ids: list[int]
    probabilities: list[float]
    top: list[tuple[int, float]]
    nats: float | None


def lens_rows(network: Network, seen: Trace, count: int = 5) -> list[LensRow]:
    """The logit lens of every layer, the embeddings first."""
    rows = []
    for layer in range(len(seen.streams)):
        log_p = lens(network, seen, layer)
        best = log_p.max(dim=-1)
        last = log_p[-1].topk(min(count, log_p.shape[-1]))
        following = torch.tensor(list(seen.ids[1:]), dtype=torch.int64, device=log_p.device)
        nats = -log_p[:-1].gather(1, following[:, None]).mean() if len(following) else None
        rows.append(
            LensRow(
                layer,
                best.indices.tolist(),
                best.values.exp().tolist(),
                list(zip(last.indices.tolist(), last.values.exp().tolist(), strict=True)),
                None if nats is None else float(nats),
            )
        )
    return rows


@dataclass(frozen=True)
class HeadHabit:
    """Where a head looks: shares of its attention, each the mean over the positions that have a choice.

    Attributes:
        first, previous, itself: to the first position, the one before, the position itself.
    """

    head: int
    first: float
    previous: float
    itself: float


def habits(attention: Tensor) -> list[HeadHabit]:
    """
    Args:
        attention: (H, T, T), as `Trace.attention` gives it; T is 2 or more.

    >>> habits(torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]))
    [HeadHabit(head=0, first=0.25, previous=0.25, itself=0.75)]
    """
    rows = attention[:, 1:]  # the first position can only look at itself
    first = rows[:, :, 0].mean(dim=1)
    previous = rows.diagonal(dim1=1, dim2=2).mean(dim=1)
    itself = attention.diagonal(dim1=1, dim2=2)[:, 1:].mean(dim=1)
    return [
        HeadHabit(head, float(first[head]), float(previous[head]), float(itself[head]))
        for head in range(len(attention))
    ]
