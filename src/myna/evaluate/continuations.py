"""What an ending costs a model after its context: the scores that tasks with a choice of endings are made of.

A task makes its items `Question`s, and reads its answers from what `ending_costs` yields. A question has the tokens and
characters to divide the costs by. HellaSwag is such a task (hellaswag.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from myna.device import autocast
from myna.evaluate.rounds import in_rounds
from myna.model.ids import check_ids
from myna.model.network import Network, evaluation_mode


@dataclass(frozen=True)
class Question:
    """A context and its endings as ids, cut to a model's window.

    `shared` comes before each of `rows`; the last `scored[i]` ids of `rows[i]` are the ending. At least one id of a
    row comes before them.
    """

    shared: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]  # tokens of each ending
    characters: tuple[int, ...]  # of each ending
    label: int | None = None  # the row that is right, for a task that knows it


def question(
    context: Sequence[int],
    endings: Sequence[Sequence[int]],
    characters: Sequence[int],
    *,
    block_size: int,
    decode: Callable[[Sequence[int]], str],
    label: int | None = None,
) -> Question:
    """A question for a model that sees `block_size` positions.

    Of context plus ending the last block_size + 1 ids are kept (the last id is a target alone). Where an ending does
    not fit, the part of it that is kept is scored, and its own characters are counted.

    Args:
        context: one id or more.
        characters: of each ending, to be scored per character.
        decode: ids to text, for the characters of an ending that was cut.

    >>> question([1, 2, 3], [[4], [5, 6]], [1, 2], block_size=8, decode=str)
    Question(shared=(1, 2), rows=((3, 4), (3, 5, 6)), scored=(1, 2), characters=(1, 2), label=None)
    """
    if len(context) + max(map(len, endings)) <= block_size + 1:
        rows = tuple((context[-1], *ending) for ending in endings)
        return Question(tuple(context[:-1]), rows, tuple(map(len, endings)), tuple(characters), label)
    rows = tuple(tuple([*context, *ending][-block_size - 1 :]) for ending in endings)
    scored = tuple(min(len(ending), len(row) - 1) for row, ending in zip(rows, endings, strict=True))
    kept = tuple(
        whole if n == len(ending) else max(1, len(decode(ending[-n:])))
        for whole, n, ending in zip(characters, scored, endings, strict=True)
    )
    return Question((), rows, scored, kept, label)


def ending_costs(
    network: Network,
    questions: Sequence[Question],
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_positions: int = 4096,
    autocast_dtype: torch.dtype | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Goes through one rank's share of the questions, some at a time.

    Args:
        network: the network itself, not its compiled or DDP wrapper. Put in evaluation mode, and back afterwards.
        questions: all of them, the same list on every rank.
        batch_positions: ids computed at once, padding counted; bounds the memory.
        before_batch: see `in_rounds`.
    Yields:
        the numbers of N questions of K rows each, and what their endings cost: (N, K) float64 nats on the CPU.
    """
    batches = list(_batches(questions, batch_positions))
    rounds = -(-len(batches) // world_size)
    for numbers in in_rounds(batches[rank::world_size], rounds, before_batch):
        batch = [questions[number] for number in numbers]
        yield numbers, ending_nats(network, batch, autocast_dtype=autocast_dtype)


def _batches(questions: Sequence[Question], batch_positions: int) -> Iterator[list[int]]:
    """Numbers of questions to compute together: equally long `shared`, equally many rows, of similar lengths."""

    def shape(number: int) -> tuple[int, int]:
        return len(questions[number].shared), len(questions[number].rows)

    def longest(number: int) -> int:
        return max(map(len, questions[number].rows))

    in_order = sorted(range(len(questions)), key=lambda number: (shape(number), longest(number)))
    for (shared, rows), group in groupby(in_order, key=shape):
        batch: list[int] = []
        for number in group:  # from short to long, so the newest is the longest
            if batch and (len(batch) + 1) * rows * (shared + longest(number)) > batch_positions:
                yield batch
                batch = []
            batch.append(number)
        yield batch


@torch.no_grad()
def ending_nats(
    network: Network, batch: Sequence[Question], *, autocast_dtype: torch.dtype | None = None
) -> Tensor:
    """What each ending costs the model after its context: minus the sum of its tokens' log-probabilities.

    The shared part is computed once a question, and its keys and values serve all its rows. Rows are padded on the
    right, where causal attention never looks.

    Shapes:
        batch    N questions of K rows, with equally long `shared`
        returns  (N, K) float64 nats on the CPU
    Raises:
        ModelError: an id outside the model's vocabulary.
    """
    device = network.device
    rows = [torch.tensor(row) for question in batch for row in question.rows]
    scored = torch.tensor([n for question in batch for n in question.scored])
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (N*K, T+1)
    shared = torch.tensor([question.shared for question in batch], dtype=torch.int64)  # (N, S)
    for part in (ids, shared):
        check_ids(part, network.config.vocab_size)
    ids, shared = ids.to(device), shared.to(device)
    T = ids.shape[1] - 1
    at = torch.arange(T)  # position t predicts id t + 1, which is scored if it is among a row's last
    wanted = ((at >= (lengths - scored - 1)[:, None]) & (at < (lengths - 1)[:, None])).to(device)  # (N*K, T)
    S = shared.shape[1]
    with evaluation_mode(network), autocast(device, autocast_dtype):
        once = network.new_cache(len(batch), S, autocast_dtype)
        if S:
            network.hidden(shared, once)
        cache = once.repeat(len(rows) // len(batch), positions=S + T)
        hidden = network.hidden(ids[:, :-1], cache)  # (N*K, T, C)
        nats = network.token_nats(hidden[wanted], ids[:, 1:][wanted]).cpu().double()
    row_of = torch.arange(len(rows)).repeat_interleave(scored)
    return torch.zeros(len(rows), dtype=torch.float64).index_add(0, row_of, nats).view(len(batch), -1)
