"""Which questions to compute together: first those whose rows begin alike, then those of similar lengths.

A bundle is some questions whose rows share enough to be in the same trees, or a single question. A batch is some
bundles of similar lengths. The plan is a function of the questions and the limits alone, so all ranks make the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from myna.evaluate.trees import Tree, common, grow, pays

Row = tuple[int, ...]


@dataclass(frozen=True)
class Limits:
    """What may be computed at once.

    Attributes:
        ids: in all, padding counted; a single row may have more.
        questions: in a batch; None for as many as fit.
        width: of the network (C), which decides what is worth sharing.
    """

    ids: int
    questions: int | None
    width: int


def inputs(rows: Sequence[Row]) -> list[Row]:
    """What the network reads of each row: the last id is a target alone."""
    return [row[:-1] for row in rows]


def planned(questions: Sequence[Sequence[Row]], limits: Limits) -> list[list[int]]:
    """Batches of question numbers.

    Args:
        questions: of each, its rows.
    """
    sized: list[tuple[int, int, list[int]]] = []
    for numbers in bundles(questions, limits):
        trees = grown([questions[number] for number in numbers], limits)
        sized.append((max(len(tree.ids) for tree in trees), len(trees), numbers))
    batches: list[list[int]] = []
    count = 0  # trees in the newest
    # From short to long, so the newest is the longest.
    for longest, n_trees, numbers in sorted(sized, key=lambda one: one[0]):
        count += n_trees
        if (
            batches
            and count * longest <= limits.ids
            and (limits.questions is None or len(batches[-1]) + len(numbers) <= limits.questions)
        ):
            batches[-1] += numbers
        else:
            batches.append(list(numbers))
            count = n_trees
    return batches


def bundles(questions: Sequence[Sequence[Row]], limits: Limits) -> list[list[int]]:
    """Neighbours in the order of their ids, as many together as begin alike for long enough.

    >>> shots = tuple(range(500))
    >>> quiz = [[(*shots, n, 1), (*shots, n, 2)] for n in (7, 8)] + [[(600, 1), (600, 2)]]
    >>> bundles(quiz, Limits(ids=4096, questions=None, width=768))
    [[0, 1], [2]]
    """
    found: list[list[int]] = []
    last: Row = ()
    size = 0
    for number in sorted(range(len(questions)), key=lambda number: min(questions[number])):
        rows = sorted(inputs(questions[number]))
        own = sum(map(len, rows)) - sum(map(common, rows, rows[1:]))
        shared = min(common(rows[0], rows[-1]), common(last, rows[0]))
        if (
            found
            and len(found[-1]) != limits.questions
            and size + own - shared <= limits.ids
            and pays(shared, own, size, limits.width)
        ):
            found[-1].append(number)
            size += own - shared
        else:
            found.append([number])
            size = own
        last = rows[0]
    return found


def grown(questions: Sequence[Sequence[Row]], limits: Limits) -> list[Tree]:
    """The trees of all rows of some questions, numbered through."""
    rows = [row for question in questions for row in question]
    return grow(inputs(rows), width=limits.width, most=limits.ids)


def passes(trees: Sequence[Tree], limits: Limits) -> Iterator[list[Tree]]:
    """A batch's trees, as many together as may be: mostly all, since the batch was planned so."""
    held: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: len(tree.ids)):
        if held and (len(held) + 1) * len(tree.ids) > limits.ids:
            yield held
            held = []
        held.append(tree)
    yield held
