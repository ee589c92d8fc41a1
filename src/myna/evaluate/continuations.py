"""What an ending costs a model after its context: the scores that every task here is made of.

A task makes its items `Question`s, of one or more rows (a context, then an ending), and reads its answers from what
`question_scores` yields:

    choice of endings (HellaSwag)     one context, several endings
    schema (Winograd)                 several contexts, the same ending
    language model (LAMBADA)          one row; right where each token of the ending was the likeliest
    perplexity                        one row a window; the ending is the part not scored before
    lm-evaluation-harness             loglikelihood: one row a request, or a question of all that share a context

Rows that begin alike share what they have in common, within a question and from question to question (trees.py). Only
the positions that predict a token of an ending go through the head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from myna.device import autocast
from myna.evaluate.rounds import in_rounds
from myna.evaluate.trees import Tree, common, grow, pays
from myna.model.ids import check_ids
from myna.model.network import Network, evaluation_mode
from myna.model.packed import Packed

BATCH_POSITIONS = 4096
LOGIT_BYTES = 1 << 26  # of logits held at once


@dataclass(frozen=True)
class Question:
    """Rows of ids, each a context and an ending, cut to a model's window.

    Attributes:
        rows: each of two ids or more.
        scored: the last so many ids of a row are its ending; at least one id comes before them.
        characters: of each ending, for a task that divides by them.
        label: the row that is right, for a task that knows it.
        cut: ids that did not fit, of the row that lost most.
    """

    rows: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]
    characters: tuple[int, ...] = ()
    label: int | None = None
    cut: int = 0


@dataclass(frozen=True)
class Score:
    """What a model says of a row.

    Attributes:
        nats: what the ending costs: minus the sum of its tokens' log-probabilities, added up in float64.
        tokens: of the ending.
        greedy: whether each of them was the likeliest.
    """

    nats: float
    tokens: int
    greedy: bool


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

    Of a context plus ending the last block_size + 1 ids are kept (the last id is a target alone). Where an ending does
    not fit, the part of it that is kept is scored.

    Args:
        pairs: a context and an ending each, as ids. An empty context stands for the beginning of a document.
        eot: the id that begins a document.
        characters: of each ending.
        decode: ids to text, to count the characters of an ending that was cut; needed with `characters`.
    Raises:
        ValueError: no pairs, or an empty ending. A task says which of its items that is.

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
    batch_positions: int = BATCH_POSITIONS,
    autocast_dtype: torch.dtype | None = None,
    before_batch: Callable[[], None] | None = None,
) -> Iterator[dict[int, tuple[Score, ...]]]:
    """Goes through one rank's share of the questions, some at a time, in an order of its own.

    Args:
        network: the network itself, not its compiled or DDP wrapper. Put in evaluation mode, and back afterwards.
        questions: all of them, the same list on every rank.
        batch_questions: how many to compute at once at most; None for as many as fit.
        batch_positions: ids to compute at once, padding counted, or one question's; bounds the memory.
        autocast_dtype: compute in this precision where autocast allows; softmax and sums stay fp32 and fp64.
        before_batch: see `in_rounds`.
    Yields:
        of the questions of a batch, by their numbers in the list, the scores of the rows in order.
    Raises:
        ModelError: an id outside the model's vocabulary.
    """
    width = network.config.n_embd
    batches = _batches(
        _bundles(questions, width, batch_questions, batch_positions), batch_questions, batch_positions
    )
    rounds = -(-len(batches) // world_size)
    for bundles in in_rounds(batches[rank::world_size], rounds, before_batch):
        rows: list[tuple[int, ...]] = []
        scored: list[int] = []
        planted: list[tuple[int, Tree]] = []
        for bundle in bundles:
            own = [row for number in bundle.questions for row in questions[number].rows]
            planted += [(len(rows), tree) for tree in grow(_inputs(own), width=width, most=batch_positions)]
            rows += own
            scored += [n for number in bundle.questions for n in questions[number].scored]
        found: dict[int, Score] = {}
        for trees in _passes(planted, batch_positions):
            found |= _scores(network, trees, rows, scored, autocast_dtype)
        in_order = iter(range(len(rows)))
        numbers = [number for bundle in bundles for number in bundle.questions]
        yield {number: tuple(found[next(in_order)] for _ in questions[number].rows) for number in numbers}


def ending_nats(
    network: Network, questions: Sequence[Question], *, autocast_dtype: torch.dtype | None = None
) -> Tensor:
    """What each ending of some questions with equally many rows costs, computed together.

    Shapes:
        returns  (N, K) float64 nats on the CPU: N questions of K rows
    """
    found: dict[int, tuple[Score, ...]] = {}
    for scores in question_scores(network, questions, autocast_dtype=autocast_dtype):
        found |= scores
    rows = [[score.nats for score in found[number]] for number in range(len(questions))]
    return torch.tensor(rows, dtype=torch.float64)


@dataclass
class _Bundle:
    """Questions whose rows begin alike, or a single one."""

    questions: list[int]
    trees: int  # that their rows take
    longest: int  # ids of the longest of them


def _inputs(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """What the network reads of each: the last id is a target alone."""
    return [row[:-1] for row in rows]


def _bundles(
    questions: Sequence[Question], width: int, batch_questions: int | None, batch_positions: int
) -> list[_Bundle]:
    """Neighbours in the order of their ids, as many together as begin alike for long enough."""
    joined: list[list[int]] = []
    last: tuple[int, ...] = ()
    size = 0
    for number in sorted(range(len(questions)), key=lambda number: min(questions[number].rows)):
        rows = sorted(_inputs(questions[number].rows))
        own = sum(map(len, rows)) - sum(map(common, rows, rows[1:]))
        shared = min(common(rows[0], rows[-1]), common(last, rows[0]))
        if (
            joined
            and len(joined[-1]) != batch_questions
            and size + own - shared <= batch_positions
            and pays(shared, own, size, width)
        ):
            joined[-1].append(number)
            size += own - shared
        else:
            joined.append([number])
            size = own
        last = rows[0]
    bundles = []
    for numbers in joined:
        rows = [row for number in numbers for row in _inputs(questions[number].rows)]
        trees = grow(rows, width=width, most=batch_positions)
        bundles.append(_Bundle(numbers, len(trees), max(len(tree.ids) for tree in trees)))
    return bundles


def _batches(
    bundles: Sequence[_Bundle], batch_questions: int | None, batch_positions: int
) -> list[list[_Bundle]]:
    """Bundles of similar lengths, to be computed together: from short to long, so the newest is the longest."""
    batches: list[list[_Bundle]] = []
    trees = count = 0
    for bundle in sorted(bundles, key=lambda bundle: bundle.longest):
        trees, count = trees + bundle.trees, count + len(bundle.questions)
        fits = trees * bundle.longest <= batch_positions and count <= (batch_questions or count)
        if batches and fits:
            batches[-1].append(bundle)
        else:
            batches.append([bundle])
            trees, count = bundle.trees, len(bundle.questions)
    return batches


def _passes(planted: Sequence[tuple[int, Tree]], batch_positions: int) -> Iterator[list[tuple[int, Tree]]]:
    """A batch's trees, as many together as may be: mostly all, since that is how the batch was made."""
    held: list[tuple[int, Tree]] = []
    for one in sorted(planted, key=lambda one: len(one[1].ids)):
        if held and (len(held) + 1) * len(one[1].ids) > batch_positions:
            yield held
            held = []
        held.append(one)
    yield held


@torch.no_grad()
def _scores(
    network: Network,
    planted: Sequence[tuple[int, Tree]],
    rows: Sequence[tuple[int, ...]],
    scored: Sequence[int],
    autocast_dtype: torch.dtype | None,
) -> dict[int, Score]:
    """The scores of the rows that some trees hold, by their numbers.

    Args:
        planted: trees; of each, the number of its first text among the rows.
    """
    T = max(len(tree.ids) for _, tree in planted)
    numbers = [first + text for first, tree in planted for text in tree.texts]
    # Of each target, the position that predicts it. One that several rows go on from meets the head once.
    predicting = [
        b * T + path[-scored[first + text] :]
        for b, (first, tree) in enumerate(planted)
        for text, path in zip(tree.texts, tree.paths, strict=True)
    ]
    positions, which = np.unique(np.concatenate(predicting), return_inverse=True)
    targets = torch.tensor([id for number in numbers for id in rows[number][-scored[number] :]])
    check_ids(targets, network.config.vocab_size)
    with evaluation_mode(network), autocast(network.device, autocast_dtype):
        hidden = _hidden(network, [tree for _, tree in planted], T).flatten(0, 1)
        nats, likeliest = _at_targets(
            network, hidden[torch.from_numpy(positions).to(hidden.device)], which, targets
        )
    row_of = np.repeat(np.arange(len(numbers)), [scored[number] for number in numbers])
    sums = np.bincount(row_of, weights=nats)
    misses = np.bincount(row_of, weights=~likeliest)
    return {
        number: Score(float(total), scored[number], missed == 0)
        for number, total, missed in zip(numbers, sums, misses.tolist(), strict=True)
    }


def _hidden(network: Network, trees: Sequence[Tree], T: int) -> Tensor:
    """What the head reads, (B, T, C), of trees padded on the right, where nothing that is scored looks."""
    ids = torch.zeros(len(trees), T, dtype=torch.int64)
    for row, tree in zip(ids, trees, strict=True):
        row[: len(tree.ids)] = torch.from_numpy(tree.ids)
    check_ids(ids, network.config.vocab_size)
    ids = ids.to(network.device)
    if all(len(tree.branches) == 1 for tree in trees):
        return network.hidden(ids)
    positions = torch.zeros(len(trees), T, dtype=torch.int64)
    visible = torch.eye(T, dtype=torch.bool).repeat(
        len(trees), 1, 1
    )  # padding sees itself: no row of nothing
    for b, tree in enumerate(trees):
        n = len(tree.ids)
        positions[b, :n] = torch.from_numpy(tree.positions)
        visible[b, :n, :n] = torch.from_numpy(tree.visible())
    layout = Packed(len(network.blocks), positions.to(network.device), visible.to(network.device))
    return network.hidden(ids, layout)


def _at_targets(
    network: Network, hidden: Tensor, which: np.ndarray, targets: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The cost of each target, and whether it was the likeliest id.

    Shapes:
        hidden   (N, C)  positions that predict
        which    (M,)    for each target, the number of its position
        targets  (M,)    int64
        returns  (M,) float64 nats, (M,) bool
    """
    nats, likeliest = np.empty(len(which)), np.empty(len(which), dtype=bool)
    chunk = max(1, LOGIT_BYTES // (4 * network.config.vocab_size))
    for start in range(0, len(hidden), chunk):
        logits = network.logits(hidden[start : start + chunk]).float()  # (n, V)
        (here,) = np.nonzero((which >= start) & (which < start + chunk))
        rows = torch.from_numpy(which[here] - start).to(logits.device)
        at_target = logits[rows, targets[here].to(logits.device)]
        nats[here] = (logits.logsumexp(dim=1)[rows] - at_target).cpu()
        likeliest[here] = (at_target == logits.amax(dim=1)[rows]).cpu()
    return nats, likeliest
