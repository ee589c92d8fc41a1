"""What an ending costs a model after its context. Every task here is built on these scores.

A task turns its items into `Question`s. A question has one or more rows, each a context and an ending. The task reads
its answers from the scores that `question_scores` yields:

    choice of endings (HellaSwag)     one context, several endings
    schema (Winograd)                 several contexts, the same ending
    language model (LAMBADA)          one row; right if every token of the ending was the most likely one
    perplexity                        one row a window; the ending is the part not scored before
    lm-evaluation-harness             loglikelihood: one row a request; requests with one context may share a question

Rows with the same beginning compute it once, within a question and across questions (trees.py). Only the positions
that predict a token of an ending go through the head.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from myna.device import autocast, casts_kept
from myna.evaluate.plan import Limits, Row, grown, passes, planned
from myna.evaluate.rounds import in_rounds
from myna.evaluate.trees import Tree
from myna.model.evaluation import evaluation_mode
from myna.model.ids import check_ids
from myna.model.network import Network
from myna.model.packed import Packed

# Ids computed at once. On a CPU more ids are no faster: the products are large enough, and padding grows.
CPU_BATCH_POSITIONS, BATCH_POSITIONS = 1024, 16_384
# Bytes of logits held at once.
LOGIT_BYTES = 1 << 26
# Bytes of logits that softmax works on at once on a CPU, so that they stay in the processor's cache.
CPU_SOFTMAX_BYTES = 1 << 21


@dataclass(frozen=True)
class Question:
    """Rows of ids, each a context and an ending, cut to a model's window.

    Attributes:
        rows: each has two ids or more.
        scored: for each row, how many ids at its end are the ending; at least one id comes before the ending.
        characters: for each ending, how many it has, for a task that divides by them.
        label: the number of the right row, for a task that knows it.
        cut: how many ids did not fit, in the row that lost most.
    """

    rows: tuple[Row, ...]
    scored: tuple[int, ...]
    characters: tuple[int, ...] = ()
    label: int | None = None
    cut: int = 0


@dataclass(frozen=True)
class Score:
    """What a model says of a row.

    Attributes:
        token_nats: what each token of the ending costs: minus its log-probability.
        greedy: whether every token of the ending was the most likely one.
    """

    token_nats: tuple[float, ...]
    greedy: bool

    @property
    def nats(self) -> float:
        """What the ending costs: the sum, in float64."""
        return sum(self.token_nats)

    @property
    def tokens(self) -> int:
        """How many tokens the ending has."""
        return len(self.token_nats)


def question(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    block_size: int,
    eot: int,
    label: int | None = None,
    characters: Sequence[int] = (),
    decode: Callable[[Sequence[int]], str] | None = None,
) -> Question:
    """A question for a model that sees `block_size` positions.

    A row keeps its last block_size + 1 ids (the last one is only a target). If an ending has more than block_size ids,
    only its last block_size ids are scored.

    Args:
        pairs: a context and an ending each, as ids. An empty context stands for the beginning of a document.
        eot: the id that begins a document.
        characters: of each ending.
        decode: ids to text, to count the characters of an ending that was cut; needed with `characters`.
    Raises:
        ValueError: no pairs, or an empty ending. The task should name the item.

    >>> question([([1, 2, 3], [4]), ([1, 2, 3], [5, 6])], block_size=8, eot=0)
    Question(rows=((1, 2, 3, 4), (1, 2, 3, 5, 6)), scored=(1, 2), characters=(), label=None, cut=0)
    >>> question([([], [4, 5, 6, 7])], block_size=2, eot=0)
    Question(rows=((5, 6, 7),), scored=(2,), characters=(), label=None, cut=2)
    """
    if not pairs or not all(len(ending) for _, ending in pairs):
        raise ValueError("a question needs a row, and each row an ending of one id or more")
    whole = [(*(context or (eot,)), *ending) for context, ending in pairs]
    rows = tuple(ids[-block_size - 1 :] for ids in whole)
    scored = tuple(min(len(ending), len(row) - 1) for row, (_, ending) in zip(rows, pairs, strict=True))
    if characters:
        assert decode is not None
        characters = [
            n if kept == len(ending) else max(1, len(decode(ending[-kept:])))
            for n, kept, (_, ending) in zip(characters, scored, pairs, strict=True)
        ]
    cut = max(len(ids) - len(row) for ids, row in zip(whole, rows, strict=True))
    return Question(rows, scored, tuple(characters), label, cut)


def n_cut(questions: Sequence[Question]) -> int:
    """How many questions did not fit the model's window; a task reports them."""
    return sum(question.cut > 0 for question in questions)


def question_scores(
    network: Network,
    questions: Sequence[Question],
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_questions: int | None = None,
    batch_positions: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Iterator[dict[int, tuple[Score, ...]]]:
    """Scores one rank's share of the questions, batch by batch. The order is not that of the list.

    Args:
        network: the network itself, not its compiled or DDP wrapper. It is in evaluation mode during a batch, and put
            back afterwards. Its weights must not change before the last batch.
        questions: all of them, the same list on every rank.
        batch_questions: compute at most this many questions at once; None for as many as fit.
        batch_positions: compute at most this many ids at once, padding included; this limits the memory. A longer row
            is computed alone. None for a number that suits the device.
        autocast_dtype: compute in this precision where autocast allows; softmax and sums stay fp32 and fp64.
        before_batch: see `in_rounds`.
    Yields:
        for each batch, the scores of its questions' rows, in order; the key is the question's number in the list.
    Raises:
        ModelError: an id outside the model's vocabulary.
    """
    limits = _limits(network, batch_questions, batch_positions)
    batches = planned([question.rows for question in questions], limits)
    rounds = -(-len(batches) // world_size)
    with casts_kept():
        for numbers in in_rounds(batches[rank::world_size], rounds, before_batch):
            batch = [questions[number] for number in numbers]
            scores = iter(_scores(network, batch, limits, autocast_dtype))
            yield {
                number: tuple(itertools.islice(scores, len(question.rows)))
                for number, question in zip(numbers, batch, strict=True)
            }


def question_rounds(network: Network, questions: Sequence[Question], *, world_size: int = 1) -> int:
    """How many batches `question_scores` goes through on every rank, when it chooses their size."""
    batches = planned([question.rows for question in questions], _limits(network))
    return -(-len(batches) // world_size)


def _limits(
    network: Network, batch_questions: int | None = None, batch_positions: int | None = None
) -> Limits:
    at_once = CPU_BATCH_POSITIONS if network.device.type == "cpu" else BATCH_POSITIONS
    return Limits(batch_positions or at_once, batch_questions, network.config.n_embd)


def ending_nats(
    network: Network, questions: Sequence[Question], *, autocast_dtype: torch.dtype | None = None
) -> Tensor:
    """What each ending costs, for questions that all have equally many rows.

    Shapes:
        returns  (N, K) float64 nats on the CPU: N questions of K rows
    """
    found: dict[int, tuple[Score, ...]] = {}
    for scores in question_scores(network, questions, autocast_dtype=autocast_dtype):
        found |= scores
    rows = [[score.nats for score in found[number]] for number in range(len(questions))]
    return torch.tensor(rows, dtype=torch.float64)


@torch.no_grad()
def _scores(
    network: Network, batch: Sequence[Question], limits: Limits, autocast_dtype: torch.dtype | None
) -> list[Score]:
    """The scores of all rows of a batch, in order."""
    rows = [row for question in batch for row in question.rows]
    scored = [n for question in batch for n in question.scored]
    found: dict[int, Score] = {}
    with evaluation_mode(network), autocast(network.device, autocast_dtype):
        for trees in passes(grown([question.rows for question in batch], limits), limits):
            found |= _pass(network, trees, rows, scored)
    return [found[number] for number in range(len(rows))]


def _pass(
    network: Network, trees: Sequence[Tree], rows: Sequence[Row], scored: Sequence[int]
) -> dict[int, Score]:
    """The scores of the rows in some trees, by row number: one pass through the network."""
    T = max(len(tree.ids) for tree in trees)
    numbers = [number for tree in trees for number in tree.texts]
    targets = torch.tensor([id for number in numbers for id in rows[number][-scored[number] :]])
    check_ids(targets, network.config.vocab_size)
    # The position that predicts each target. A position that several rows share goes through the head once.
    predicting = [
        b * T + path[-scored[number] :]
        for b, tree in enumerate(trees)
        for number, path in zip(tree.texts, tree.paths, strict=True)
    ]
    positions, which = np.unique(np.concatenate(predicting), return_inverse=True)
    hidden = _hidden(network, trees, T).flatten(0, 1)  # (B * T, C)
    hidden = hidden[torch.from_numpy(positions).to(hidden.device)]
    nats, likeliest = _at_targets(network, hidden, which, targets)
    ends = itertools.accumulate((scored[number] for number in numbers), initial=0)
    return {
        number: Score(tuple(nats[start:end]), all(likeliest[start:end]))
        for number, (start, end) in zip(numbers, itertools.pairwise(ends), strict=True)
    }


def _hidden(network: Network, trees: Sequence[Tree], T: int) -> Tensor:
    """What the head reads, (B, T, C). Trees are padded on the right, where no scored position looks."""
    ids = torch.zeros(len(trees), T, dtype=torch.int64)
    for row, tree in zip(ids, trees, strict=True):
        row[: len(tree.ids)] = torch.from_numpy(tree.ids)
    check_ids(ids, network.config.vocab_size)
    ids = ids.to(network.device)
    if all(len(tree.branches) == 1 for tree in trees):
        return network.hidden(ids)
    positions = torch.zeros(len(trees), T, dtype=torch.int64)
    # Padding sees itself: softmax over a row that sees nothing would be NaN.
    visible = torch.eye(T, dtype=torch.bool).repeat(len(trees), 1, 1)
    for b, tree in enumerate(trees):
        n = len(tree.ids)
        positions[b, :n] = torch.from_numpy(tree.positions)
        visible[b, :n, :n] = torch.from_numpy(tree.visible())
    layout = Packed(positions.to(network.device), visible.to(network.device))
    return network.hidden(ids, layout)


def _logit_bytes(device: torch.device) -> tuple[int, int]:
    """Bytes of fp32 logits: how many the head makes at once, and how many softmax works on at once."""
    return LOGIT_BYTES, CPU_SOFTMAX_BYTES if device.type == "cpu" else LOGIT_BYTES


def _at_targets(
    network: Network, hidden: Tensor, which: np.ndarray, targets: Tensor
) -> tuple[list[float], list[bool]]:
    """The cost of each target in nats, and whether it was the likeliest id.

    Shapes:
        hidden   (N, C)  positions that predict
        which    (M,)    for each target, the number of its position
        targets  (M,)    int64
    """
    nats, likeliest = np.empty(len(which)), np.empty(len(which), dtype=bool)
    chunk, block = (max(1, held // (4 * network.config.vocab_size)) for held in _logit_bytes(hidden.device))
    for start in range(0, len(hidden), chunk):
        logits = network.logits(hidden[start : start + chunk])  # (n, V)
        for first, some in zip(range(start, len(hidden), block), logits.split(block), strict=False):
            (here,) = np.nonzero((which >= first) & (which < first + len(some)))
            rows = torch.from_numpy(which[here] - first).to(logits.device)
            some = some.float()
            at_target, largest = some[rows, targets[here].to(logits.device)], some.amax(dim=1)
            # Nothing else uses these logits, so softmax may overwrite them: half the time of logsumexp.
            log_sum = largest + some.sub_(largest[:, None]).exp_().sum(dim=1).log()
            nats[here] = (log_sum[rows] - at_target).cpu()
            likeliest[here] = (at_target == largest[rows]).cpu()
    return nats.tolist(), likeliest.tolist()
